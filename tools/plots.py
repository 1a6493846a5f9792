"""Draw the documentation's plots from the result files, as SVG.

    python tools/plots.py

ndcg.svg           nDCG@10 on LoCoMo before and after training, from modes.json, modes-starter-turns.json, -facts.json
ablation.svg       nDCG@10 by how the negatives are chosen, from ablation.json
training-cost.svg  seconds of training against what it gains, from modes.json and modes-one.json
rounds.svg         what towers find after each of five rounds, from rounds.json

The same results and the same matplotlib give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hins_memory.errors import ConfigError, HinsError

__all__ = ["PLOTS", "draw", "main"]

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_GREY, _BLUE, _LIGHT, _ORANGE = "#9aa0a6", "#1a56a8", "#8ab4e8", "#d9731a"
_METRIC = "nDCG@10, percent"
_STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "legend.frameon": False,
    # Text stays text: small files, and the page's own font.
    "svg.fonttype": "none",
    # Ids in the file come from this and not from chance.
    "svg.hashsalt": "hins-memory",
}
_NEGATIVES = {
    "in_batch": "none but those in the batch",
    "random": "random",
    "hard": "the paper's hard tier",
    "medium": "the paper's medium tier",
    "paper": "the paper's tiers",
    "topk_margin": "top 20 with a margin",
    "hins": "hins",
}
_MARKERS = {"query": "^", "lora": "o", "full": "s"}

Results = Callable[[str], dict[str, Any]]


def _by_memories(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["memories"]: row for row in result["rows"] if row["variant"] == "lora"}


def _ndcg(axes: Any, results: Results) -> None:
    """Draw four bars for turns and for facts; whiskers are the 95% interval of the gain over stock."""
    plain = _by_memories(results("modes"))
    started = {kind: _by_memories(results(f"modes-starter-{kind}"))[kind] for kind in plain}
    bars: dict[str, tuple[str, list[tuple[float, tuple[float, float] | None]]]] = {
        "stock": (_GREY, [(plain[kind]["stock"], None) for kind in plain]),
        "starter, no traffic yet": (_LIGHT, [(started[kind]["before"], None) for kind in plain]),
        "stock, trained on traffic": (
            _ORANGE,
            [(plain[kind]["trained"], _interval(plain[kind], "gain")) for kind in plain],
        ),
        "starter, trained on traffic": (
            _BLUE,
            [(started[kind]["trained"], _interval(started[kind], "gain_over_stock")) for kind in plain],
        ),
    }
    width = 0.8 / len(bars)
    for number, (name, (colour, values)) in enumerate(bars.items()):
        for group, (value, interval) in enumerate(values):
            place = group + (number - (len(bars) - 1) / 2) * width
            axes.bar(place, value, 0.92 * width, color=colour, label=name if group == 0 else None)
            if interval is not None:
                axes.errorbar(place, value, yerr=[[interval[0]], [interval[1]]], color="black", linewidth=1, capsize=2)
            axes.text(
                place, 1.2, f"{value:.1f}", ha="center", color="black" if colour != _BLUE else "white", fontsize=9
            )
    axes.set_xticks(range(len(plain)), [f"memories are {kind}" for kind in plain])
    axes.set_ylabel(_METRIC)
    axes.set_ylim(0, 84)
    axes.set_xlabel("whiskers: 95% interval of the gain over stock")
    axes.legend(ncols=2, loc="upper left")
    axes.set_title("LoCoMo, conversations never seen in training", loc="left")


def _interval(row: Mapping[str, Any], gain: str) -> tuple[float, float]:
    """Return how far the interval of a gain reaches below and above it."""
    return row[gain] - row[f"{gain}_low"], row[f"{gain}_high"] - row[gain]


def _ablation(axes: Any, results: Results) -> None:
    """Draw, for each way to choose negatives, the mean over the seeds and a dot for each seed.

    Dots and not bars, because the axis does not begin at 0.
    """
    rows = sorted(results("ablation")["rows"], key=lambda row: float(row["ndcg10"]))
    for place, row in enumerate(rows):
        colour = _BLUE if row["negatives"] == "hins" else "black"
        axes.plot(row["seeds"], [place] * len(row["seeds"]), "o", color=_GREY, markersize=4)
        axes.plot(row["ndcg10"], place, "D", color=colour, markersize=7)
        axes.annotate(
            f"{row['ndcg10']:.1f}",
            (row["ndcg10"], place),
            (0, 7),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    axes.set_yticks(range(len(rows)), [_NEGATIVES.get(row["negatives"], row["negatives"]) for row in rows])
    axes.set_xlim(48, 61)
    axes.set_ylim(-0.5, len(rows) - 0.3)
    axes.grid(axis="y", color="#e4e6e9")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{_METRIC}: the mean, and each seed")
    axes.set_title("Negatives, everything else equal", loc="left")


def _training_cost(axes: Any, results: Results) -> None:
    """Draw a point for each mode, on turns and on facts, with the 95% interval of its gain."""
    for row in (*results("modes")["rows"], *results("modes-one")["rows"]):
        colour = _BLUE if row["memories"] == "turns" else _ORANGE
        low, high = _interval(row, "gain")
        point = row["train_seconds"], row["gain"]
        axes.errorbar(*point, yerr=[[low], [high]], fmt=_MARKERS[row["variant"]], color=colour, capsize=2)
        offset = (7, 6 if row["memories"] == "turns" else -12)
        axes.annotate(f"{row['variant']}, {row['memories']}", point, offset, textcoords="offset points", color=colour)
    axes.set_xlim(0, 230)
    axes.set_ylim(-2, 36)
    axes.set_xlabel("seconds of training a fold, one busy CPU core; whiskers: 95% interval")
    axes.set_ylabel("gain in nDCG@10 over stock, points")
    axes.set_title("What a training costs and gains", loc="left")


def _rounds(axes: Any, results: Results) -> None:
    """Draw a line over the rounds for the first round's questions and for all so far, by what a tower begins as."""
    rows = results("rounds")["rows"]
    styles = {"documents": "-", "last": ":"}
    for start, style in styles.items():
        part = [row for row in rows if row["start"] == start]
        rounds = [row["round"] for row in part]
        for name, colour, label in (("so_far", _BLUE, "all so far"), ("first", _ORANGE, "the first round's")):
            axes.plot(rounds, [row[name] for row in part], style, color=colour, label=f"{label}, begins as {start}")
    part = [row for row in rows if row["start"] == "documents"]
    for name in ("so_far_untrained", "first_untrained"):
        legend = {"label": "untrained"} if name == "so_far_untrained" else {}
        axes.plot([row["round"] for row in part], [row[name] for row in part], "--", color=_GREY, **legend)
    axes.set_xticks([row["round"] for row in part])
    axes.set_ylim(55, 70)
    axes.set_xlabel("rounds, each with the traffic of two more conversations")
    axes.set_ylabel(_METRIC)
    axes.set_title("Later questions after each round, LoCoMo, turns", loc="left")
    axes.legend(fontsize=8, ncols=2, loc="upper left")


#: Name of the file -> what draws it, and its size in inches.
PLOTS: dict[str, tuple[Callable[[Any, Results], None], tuple[float, float]]] = {
    "ndcg.svg": (_ndcg, (7, 3.8)),
    "ablation.svg": (_ablation, (7, 3.2)),
    "training-cost.svg": (_training_cost, (7, 3.8)),
    "rounds.svg": (_rounds, (7, 3.8)),
}


def draw(results: Path, target: Path) -> list[Path]:
    """Draw all plots.

    Args:
        results: the folder of the result files.
        target: the folder to write to, made where it is missing.

    Returns:
        The files that were written.

    Raises:
        ConfigError: matplotlib or a result file is missing, or a file is not what its benchmark writes.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Plots need matplotlib.", 'Install it: pip install "hins-memory[bench]"') from error

    def result(name: str) -> dict[str, Any]:
        return dict(json.loads((results / f"{name}.json").read_text(encoding="utf-8")))

    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (plot, size) in PLOTS.items():
        with rc_context(_STYLE):
            figure = Figure(figsize=size, layout="constrained")
            try:
                plot(figure.subplots(), result)
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise ConfigError(
                    f"{name} cannot be drawn from {results}: {error!r}.", "Restore the result files."
                ) from error
            figure.savefig(target / name, format="svg", metadata={"Date": None, "Creator": None})
        written.append(target / name)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all plots and return the exit status."""
    parser = argparse.ArgumentParser(description="Draw the documentation's plots from the result files.")
    parser.add_argument("--results", type=Path, metavar="DIR", default=_DOCS / "results", help="default docs/results")
    parser.add_argument("--to", type=Path, metavar="DIR", default=_DOCS / "assets", help="default docs/assets")
    arguments = parser.parse_args(argv)
    try:
        for path in draw(arguments.results, arguments.to):
            print(path)
    except HinsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
