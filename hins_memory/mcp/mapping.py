"""Which tools of an MCP server search, add and delete memories, and where texts and ids are; from TOML."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from hins_memory.errors import ConfigError

__all__ = ["Items", "Mapped", "Template", "ToolMap", "packaged", "read_mapping"]

#: What a name in a template may begin with.
_ROOTS = ("arguments", "result", "item", "above")
_NAME = re.compile(r"\{([^{}]*)\}")
_SCOPE = ("user", "agent", "run", "tenant")
#: The keys of a tool by what it does: those that it must have, and those that it may have.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "search": (("query", "items"), ("pattern", "id", "text", "score")),
    "add": (("text",), ("items", "pattern", "id", "speaker", "topic")),
    "delete": ((), ("items", "pattern", "id", "text", "speaker")),
}
_HINT = "docs/how-to/mcp.md has the keys of a mapping, and an example."


@dataclass(frozen=True, slots=True)
class Template:
    """A text with names in braces, e.g. ``{above.name}: {item}``.

    Raises:
        ConfigError: a name does not begin with one of arguments, result, item and above, or a brace is alone.
    """

    text: str

    def __post_init__(self) -> None:
        for name in self.names:
            if name.split(".")[0] not in _ROOTS:
                raise ConfigError(f"{self.text!r} has the name {name!r}.", f"Begin it with one of {', '.join(_ROOTS)}.")
        if set("{}") & set(_NAME.sub("", self.text)):
            raise ConfigError(f"{self.text!r} has a brace that belongs to no name.", _HINT)

    @property
    def names(self) -> list[str]:
        """The names in it, without their braces."""
        return _NAME.findall(self.text)

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return the text with values for its names; "" if none of its names has one."""
        found = {name: _written(_looked_up(values, name)) for name in self.names}
        if found and not any(found.values()):
            return ""
        return _NAME.sub(lambda match: found[match.group(1)], self.text).strip()


@dataclass(frozen=True, slots=True)
class Items:
    """Where the single memories of a call are, e.g. ``result.entities[].observations[]``; "" for the call as one.

    Attributes:
        path: the names that lead there; ``[]`` stands for each element of a list.
        pattern: a regular expression, where a text is there: each match is a memory, with its named groups.

    Raises:
        ConfigError: the path begins with neither arguments nor result, or the pattern is not valid or has no path.
    """

    path: str = ""
    pattern: str = ""

    def __post_init__(self) -> None:
        root = self.path.split(".")[0].removesuffix("[]")
        if (self.path or self.pattern) and root not in ("arguments", "result"):
            raise ConfigError(f"items is {self.path!r}.", "Begin it with arguments or result.")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"pattern is not a regular expression: {error}.", _HINT) from error

    def of(self, call: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the values for templates of each memory: those of the call, its ``item``, and what is ``above`` it.

        Raises:
            LookupError: the call has no such place.
        """
        if not self.path:
            yield call
            return
        found = _walk({**call, "item": call}, self.path.split("."), first=True)
        for values in found:
            if not self.pattern:
                yield values
            elif isinstance(values["item"], str):
                for match in re.finditer(self.pattern, values["item"]):
                    yield {**values, "item": match.groupdict(), "above": values["item"]}


def _walk(values: Mapping[str, Any], parts: list[str], first: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield values for each element of the lists along a path; only the part before the first list has to be there."""
    inside = values["item"]
    for number, part in enumerate(parts):
        name = part.removesuffix("[]")
        if not isinstance(inside, Mapping) or name not in inside:
            if first:
                raise LookupError(f"there is no {'.'.join(parts[: number + 1])}")
            return
        inside = inside[name]
        if part.endswith("[]"):
            for element in inside if isinstance(inside, list) else ():
                below = {**values, "item": element, "above": values["item"]}
                yield from _walk(below, parts[number + 1 :])
            return
    yield {**values, "item": inside}


@dataclass(frozen=True, slots=True)
class ToolMap:
    """What calls of one tool mean.

    Attributes:
        does: ``search``, ``add`` or ``delete``.
        items: where its memories are.
        fields: query, text, id, score, speaker and topic, as far as they are given.
    """

    does: str
    items: Items
    fields: Mapping[str, Template]

    @property
    def arguments(self) -> set[str]:
        """The arguments of the tool that the mapping reads."""
        names = [name for template in self.fields.values() for name in template.names]
        return {name.split(".")[1].removesuffix("[]") for name in (*names, self.items.path) if _is_argument(name)}


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping: the tools of a server by their names, and whose memories a call is about."""

    tools: Mapping[str, ToolMap]
    scope: Mapping[str, Template] = field(default_factory=dict)


def packaged() -> list[str]:
    """Return the names of the mappings that are in the package."""
    found = resources.files(__package__).joinpath("mappings").iterdir()
    return sorted(one.name.removesuffix(".toml") for one in found if one.name.endswith(".toml"))


def read_mapping(name: str) -> Mapped:
    """Return a packaged mapping by its name, or the one in a file.

    Raises:
        ConfigError: there is no such mapping, or it is not valid.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        if name in packaged():
            file = resources.files(__package__).joinpath("mappings").joinpath(f"{name}.toml")
            text = file.read_text(encoding="utf-8")
        else:
            text = Path(name).expanduser().read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        known = ", ".join(packaged())
        raise ConfigError(f"There is no mapping {name}: {error}.", f"Name a file, or one of {known}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The mapping {name} cannot be read: {error}.", "Write it as TOML, in UTF-8.") from error
    try:
        return _mapped(content)
    except ConfigError as error:
        raise ConfigError(f"The mapping {name}: {error.problem}", error.hint) from error


def _mapped(content: Mapping[str, Any]) -> Mapped:
    tools, scope = content.get("tools"), content.get("scope", {})
    if unknown := sorted(content.keys() - {"tools", "scope"}):
        raise ConfigError(f"it has an unknown name: {unknown[0]}.", _HINT)
    if not isinstance(tools, dict) or not tools:
        raise ConfigError("it has no tools.", _HINT)
    if not isinstance(scope, dict) or not scope.keys() <= set(_SCOPE):
        raise ConfigError("its scope has an unknown name.", f"Use {', '.join(_SCOPE)}.")
    return Mapped(
        {name: _in_tool(name, _tool, table) for name, table in tools.items()},
        {name: _in_tool("scope", _template, text) for name, text in scope.items()},
    )


def _in_tool(name: str, read: Any, value: Any) -> Any:
    try:
        return read(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.problem}", error.hint) from error


def _tool(table: Any) -> ToolMap:
    does = table.get("does") if isinstance(table, dict) else None
    if does not in _KEYS:
        raise ConfigError(f"does is {does!r}.", f"Use one of {', '.join(_KEYS)}.")
    needed, allowed = _KEYS[does]
    given = table.keys() - {"does"}
    if missing := sorted(set(needed) - given):
        raise ConfigError(f"{missing[0]} is missing.", _HINT)
    if unknown := sorted(given - {*needed, *allowed}):
        raise ConfigError(f"a tool that does {does} has no {unknown[0]}.", _HINT)
    if does == "delete" and len(given & {"id", "text", "speaker"}) != 1:
        raise ConfigError("a tool that deletes needs one of id, text and speaker.", _HINT)
    if does == "search" and not given & {"id", "text"}:
        raise ConfigError("a tool that searches needs id or text.", _HINT)
    templates = {name: _template(text) for name, text in table.items() if name not in ("does", "items", "pattern")}
    items = (table.get("items", ""), table.get("pattern", ""))
    if wrong := [text for text in items if not isinstance(text, str)]:
        raise ConfigError(f"{wrong[0]!r} is not a text.", _HINT)
    return ToolMap(does, Items(*items), templates)


def _template(text: Any) -> Template:
    if not isinstance(text, str):
        raise ConfigError(f"{text!r} is not a text.", _HINT)
    return Template(text)


def _is_argument(name: str) -> bool:
    return name.startswith("arguments.")


def _looked_up(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _written(value: Any) -> str:
    """Return a value as text: a list as its texts, one a line; "" for what is none."""
    if isinstance(value, list):
        return "\n".join(filter(None, map(_written, value)))
    return str(value) if isinstance(value, (str, int, float)) else ""
