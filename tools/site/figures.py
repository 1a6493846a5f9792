"""Draw the documentation's figures into docs/assets, as SVG: the loop, the tiers, the rooms, and the states of a swap.

    python tools/site/figures.py

Plots of results are tools/plots.py's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

__all__ = ["FIGURES", "ROOMS", "main"]

_ASSETS = Path(__file__).resolve().parents[2] / "docs" / "assets"
_BLUE, _ORANGE, _GREY = ("#e8eef8", "#1a56a8"), ("#fbf3ea", "#d9731a"), ("#f4f4f4", "#777")
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#444"/></marker></defs>'
)
#: The rows of the figure of the rooms, from the top, each with what it is for.
ROOMS = (
    (("cli", "server", "mcp", "demo"), "the face"),
    (("loop",), "the only room that knows all the stages"),
    (("mining", "training", "synthesis", "swapping"), "none imports another"),
    (("sdk", "testing", "cluster"), "base classes for adapters, their contract suite; tasks on a Ray cluster"),
    (
        ("registry", "evaluation", "log", "encoders"),
        "versions and what serves; metrics and gate; events; texts to vectors",
    ),
    (("llm", "database", "data", "plugins", "common"), "what everything stands on"),
    (("types", "errors", "config"), "anything may import them"),
)


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="13">'
    )
    sheet = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", _TIP, sheet, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, size: int = 11, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    written = escape(text, quote=False)
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{weight}>{written}</text>'


def _rect(x: float, y: float, width: float, height: float, colours: tuple[str, str]) -> str:
    fill, stroke = colours
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{stroke}"/>'


def _arrow(*points: tuple[float, float]) -> str:
    line = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{line}" fill="none" stroke="#444" stroke-width="1.4" marker-end="url(#tip)"/>'


def _chain(y: int, steps: Sequence[tuple[str, tuple[str, str]]]) -> list[str]:
    """Return boxes side by side with arrows from each to the next."""
    parts = []
    for number, (name, lines) in enumerate(steps):
        x = 20 + 150 * number
        parts += [_rect(x, y, 126, 78, _BLUE), _text(x + 63, y + 20, name, 13, "middle", bold=True)]
        parts += [_text(x + 63, y + 39 + 16 * row, line, 11, "middle") for row, line in enumerate(lines)]
        if number:
            parts.append(_arrow((x - 24, y + 39), (x - 2, y + 39)))
    return parts


def _loop() -> str:
    steps = (
        ("capture", ("turns, memories,", "searches, outcomes")),
        ("mine", ("positives, and", "negatives by tier")),
        ("train", ("contrastive,", "minutes on a CPU")),
        ("gate", ("against what serves,", "held-out conversations")),
        ("swap", ("re-embed, verify,", "flip, keep the old")),
    )
    parts = [
        _rect(20, 14, 726, 40, _GREY),
        _text(383, 39, "the agent: searches and answers with the encoder that serves", 13, "middle", bold=True),
        *_chain(90, steps),
        *(_arrow((83, 54), (83, 88)), _text(91, 76, "events")),
        *(_arrow((683, 90), (683, 56)), _text(675, 76, "new encoder", anchor="end")),
        _arrow((533, 168), (533, 196), (83, 196), (83, 170)),
        _text(308, 212, "refused: the report says which rule failed; more traffic is captured", anchor="middle"),
    ]
    return _svg(766, 224, "The loop: capture, mine, train, gate, swap", parts)


def _note(x: int, y: int, width: int, lines: tuple[str, str], colours: tuple[str, str]) -> list[str]:
    first, second = lines
    return [_rect(x, y, width, 44, colours), _text(x + 8, y + 18, first, bold=True), _text(x + 8, y + 35, second)]


def _tiers() -> str:
    title = "A query, the memory that its answer came from, and negatives by tier"
    hard = ("hard: same topic, other speaker", "Bob: I practise the cello daily.")
    parts = [
        _text(20, 26, title, 13, bold=True),
        *(_rect(20, 42, 500, 196, _ORANGE), _text(32, 60, "the conversation that the positive is from")),
        *(_rect(40, 72, 280, 152, ("#f3dcc6", "#d9731a")), _text(52, 90, "the topic of the positive: music")),
        *(_rect(536, 42, 210, 196, _GREY), _text(548, 60, "other conversations of the same owner")),
        *_note(52, 102, 256, ("positive", "Ann: I play the oboe now."), ("#dff0df", "#2e7d32")),
        *_note(52, 164, 256, hard, ("#ffffff", "#b3261e")),
        *_note(332, 102, 176, ("medium: other topic", "Ann: My flight leaves at six."), ("#ffffff", "#d9731a")),
        *_note(548, 102, 186, ("easy: other conversation", "Ann: The garden needs water."), ("#ffffff", "#777")),
        *(_text(332, 178, "same topic, same speaker:"), _text(332, 194, "in no tier")),
        _rect(20, 252, 726, 32, _BLUE),
        _text(383, 272, 'query: "Which instrument does Ann play?"', 13, "middle", bold=True),
    ]
    return _svg(766, 298, title, parts)


def _rooms() -> str:
    title = "Rooms of hins_memory: each imports only rooms below it, or to its right in the same row"
    parts, y = [_text(20, 26, title, 13, bold=True)], 42
    for rooms, purpose in ROOMS:
        width = (440 - 10 * (len(rooms) - 1)) / len(rooms)
        for number, room in enumerate(rooms):
            x = 20 + number * (width + 10)
            parts += [_rect(x, y, width, 34, _BLUE), _text(x + width / 2, y + 22, room, 12, "middle", bold=True)]
        parts.append(_text(476, y + 22, purpose))
        y += 44
    parts += [
        _rect(20, y + 6, 440, 34, _ORANGE),
        _text(240, y + 28, "adapters: mem0, memoryos, yours", 12, "middle", bold=True),
        _text(476, y + 28, "know one framework each; rooms from sdk down"),
    ]
    return _svg(840, y + 56, title, parts)


def _swap() -> str:
    title = "A swap: searches are served in every state, each by one encoder with its own vectors"
    steps = (
        ("live", ("one index serves", "")),
        ("shadow", ("being built beside it;", "writes go to both")),
        ("verified", ("counts, ids, payloads,", "sampled vectors")),
        ("flipped", ("the new one serves;", "the old one is kept")),
        ("retired", ("the old one", "is dropped")),
    )
    parts = [
        _text(20, 24, title, 13, bold=True),
        *_chain(40, steps),
        _arrow((533, 118), (533, 150), (83, 150), (83, 120)),
        _text(308, 166, "hins rollback", 12, "middle"),
    ]
    return _svg(766, 180, title, parts)


#: Name of the file -> what draws it.
FIGURES: dict[str, Callable[[], str]] = {
    "loop.svg": _loop,
    "tiers.svg": _tiers,
    "rooms.svg": _rooms,
    "swap.svg": _swap,
}


def main() -> int:
    """Write all figures."""
    for name, draw in FIGURES.items():
        (_ASSETS / name).write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
