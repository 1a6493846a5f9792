"""Makes texts safe to print: control characters and invisible characters are shown as their codes.

Memories, queries, names and paths are what users typed. Written to a terminal as they are, they can set its title,
fill the clipboard, clear the screen, overwrite a line, or reorder a line so that it reads differently.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

__all__ = ["moment", "one_line", "printable"]

# Controls (C0, DEL, C1), lone surrogates, interlinear annotations, noncharacters, and what Unicode 16 lists as
# Default_Ignorable_Code_Point: bidirectional controls, zero-width characters, tags, fillers.
_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
)
# Joiners shape Persian, Indic scripts and emoji, and two variation selectors choose how a sign looks. They are kept
# in such texts.
_NOT_ASCII = f"[^\x00-\x7f{_INVISIBLE}]"
_SHAPING = "|".join(
    (
        f"(?<={_NOT_ASCII})[\u200c\u200d](?={_NOT_ASCII})",
        f"(?<=[^\x00-\x7f][\ufe0e\ufe0f])\u200d(?={_NOT_ASCII})",
        f"(?:(?<={_NOT_ASCII})|(?<=[#*0-9]))[\ufe0e\ufe0f]",
    )
)
_TEXT = re.compile(f"{_SHAPING}|([{_INVISIBLE}])")
_LINE = re.compile(f"{_SHAPING}|([{_INVISIBLE}\t\n])")


def printable(text: str) -> str:
    r"""Return a text with every control or invisible character as its code: ``\x1b``, ``\u202e``.

    Line feeds and tabs stay, and so do letters, signs and emoji of all scripts. What comes back can be encoded as
    UTF-8, and is not changed by a second call.
    """
    return _TEXT.sub(_escaped, text)


def one_line(text: str) -> str:
    r"""Return what `printable` returns, with line feeds and tabs as ``\n`` and ``\t`` too."""
    return _LINE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character: str | None = match.group(1)
    if character is None:
        return match.group(0)
    named = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
    if character in named:
        return named[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def moment(time: object, *, seconds: bool = True) -> str:
    """Return a time in seconds since the Unix epoch as date and time (UTC); any other value as text.

    A log may hold any float, and an imported manifest any value: a bad time must not stop the rest from being shown.
    """
    try:
        when = datetime.fromtimestamp(float(time), tz=timezone.utc)  # type: ignore[arg-type]
    except (OverflowError, OSError, TypeError, ValueError):
        return one_line(f"{time:g}" if isinstance(time, float) else str(time))
    return when.isoformat(sep=" ", timespec="seconds" if seconds else "minutes").removesuffix("+00:00")
