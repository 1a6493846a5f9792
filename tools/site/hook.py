"""Hooks of the documentation site: the pages at the root of the repository, and the list of decisions.

MkDocs reads one folder. CHANGELOG.md, CONTRIBUTING.md and SECURITY.md stay where readers of the repository look for
them, and are pages of the site too. A new decision needs no entry in mkdocs.yml.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

__all__ = ["ROOT_PAGES", "on_config", "on_files", "on_page_markdown"]

_ROOT = Path(__file__).resolve().parents[2]
_DECISIONS = "decisions/index.md"
#: Pages at the root of the repository, and the name that each has in the site.
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
_UP = re.compile(rf"\]\(((?:\.\./)+)({'|'.join(map(re.escape, ROOT_PAGES))})(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Put every decision into the navigation, below the page about decisions."""
    for section in _sections(config["nav"]):
        if _DECISIONS in section:
            section += [f"decisions/{path.name}" for path in _decisions()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the repository's root; their links into docs/ become links within the site."""
    for name, target in ROOT_PAGES.items():
        text = (_ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, page in ROOT_PAGES.items():
            text = text.replace(f"]({other}", f"]({page}")
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """List the decisions on their page, and make links to pages of the root links within the site."""
    if page.file.src_uri == _DECISIONS:
        titles = [(path.name, path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")) for path in _decisions()]
        markdown += "\n\n" + "\n".join(f"- [{title}]({name})" for name, title in titles)
    # One level less up: the site has them beside the pages of docs/.
    return _UP.sub(lambda found: f"]({found[1][3:]}{ROOT_PAGES[found[2]]}{found[3] or ''})", markdown)


def _decisions() -> list[Path]:
    return sorted((_ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def _sections(entry: Any) -> list[list[Any]]:
    """Return all lists of the navigation, the outermost first."""
    if isinstance(entry, dict):
        return [section for value in entry.values() for section in _sections(value)]
    if isinstance(entry, list):
        return [entry, *(section for value in entry for section in _sections(value))]
    return []
