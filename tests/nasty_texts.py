"""Texts that attack whoever looks at them, and what a screen must not hold."""

from __future__ import annotations

import re
import unicodedata

import html5lib
from hypothesis import strategies as st

NASTY = (
    # terminals: title, clipboard, clear, colours, 8-bit controls, device strings, links, overwriting
    *(
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0gLXJm\x07",
        "\x1b[2J\x1b[H",
        "\x1b[31mred",
        "\x9b31m",
        "\x90q\x9c",
        "\x9d0;t\x9c",
    ),
    *(
        "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
        "\x1bP+q\x1b\\",
        "\x1b_Gi=1\x1b\\",
        "\x1bc",
        "\x0e",
        "\x1b[",
    ),
    *("safe\rEvil", "abc\b\b\bxyz", "\x7f", "\x00", "\x0b\x0c", "\x85", "a\nError: forged", "tab\tbed"),
    # order and invisibility
    *(
        "\u202egnp.exe",
        "\u2066a\u2069",
        "\u200b",
        "\ufeff",
        "\u2028",
        "\u2060\u200f\u061c",
        "\U000e0041\U000e007f",
        "\u00ad",
    ),
    # rich's markup and emoji codes, format strings
    *(
        "[/b]",
        "[bold]",
        "[link=http://evil.example]x[/link]",
        "[/]",
        "[red",
        "\\[b]",
        ":smile:",
        "%s%n",
        "{0.__class__}",
    ),
    # HTML and Jinja
    *("</td><script>alert(1)</script>", '" onload="alert(1)', "' onmouseover='x", "<!--", "-->", "]]>", "&lt;&#0;"),
    *(
        "{{ 7*7 }}",
        "{% raw %}",
        "{# x",
        "<img src=http://evil.example/x.png>",
        "</style><style>*{}",
        "</title>",
        "<svg/onload=x>",
    ),
    # halves of characters, other scripts, length
    *("\ud800", "\udcff", "\uffff", "👨‍👩‍👧 ❤️", "می‌خواهم", "漢字　かな", "e\u0301" * 9, "long " * 60, "", " "),
)
#: Any text, most of them with something of the above.
texts = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), max_size=4).map("".join)
#: What the operating system can hand to a program as an argument.
arguments = texts.map(lambda text: re.sub("[\x00\ud800-\udfff]", "", text))
#: All of them at once.
EVERYTHING = " ".join(NASTY)

_ELEMENTS = {
    *("html", "head", "meta", "title", "link", "style", "body", "h1", "h2", "section", "p", "br", "div", "span", "i"),
    *("table", "thead", "tbody", "tr", "th", "td"),
    *("figure", "figcaption", "svg", "line", "text", "polyline", "circle", "rect"),
}
_ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "rel", "href", "scope", "class", "style", "role"),
    *("aria-label", "viewBox", "width", "height", "font-size", "fill", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy"),
    *("r", "points", "stroke", "stroke-width", "tabindex", "text-anchor"),
}
_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_UNSEEN = set("\u200b\u200e\u200f\u061c\u2060\ufeff\u00ad")
# What rich tells a terminal: styles, erase, cursor up, cursor shown or hidden, begin of line.
_RICH = re.compile(r"\x1b\[[0-9;]*m|\x1b\[2K|\x1b\[1A|\x1b\[\?25[lh]|\r")


def harmful(text: str, *, drawn: bool = False) -> set[str]:
    """Return the characters of a screen that act on a terminal or cannot be seen.

    Args:
        text: what was written.
        drawn: rich drew on a terminal, so that its own sequences are left out.
    """
    if drawn:
        text = _RICH.sub("", text)
    return {
        one
        for one in text
        if one not in "\n\t"
        and (
            unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(one) in _BIDI
            or one in _UNSEEN
            or "\U000e0000" <= one <= "\U000e007f"
        )
    }


def check_page(text: str) -> None:
    """Fail unless a page is valid HTML of the elements that reports are made of, fetches nothing and hides nothing."""
    assert not harmful(text)
    # Strict: an error of the kinds that the HTML standard lists ends it.
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    for element in tree.iter():
        # A comment would have a function for its tag.
        assert isinstance(element.tag, str)
        assert element.tag.rpartition("}")[2] in _ELEMENTS
        assert set(element.attrib) <= _ATTRIBUTES
        assert element.attrib.get("href", "data:,") == "data:,"
        assert "url" not in element.attrib.get("style", "")
