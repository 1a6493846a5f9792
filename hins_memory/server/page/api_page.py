"""The API as a page, from the schema of OpenAPI: FastAPI's own page would fetch scripts from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hins_memory.common.html import paragraph, table
from hins_memory.server.page.overview import Part

__all__ = ["api_sections"]


def api_sections(schema: Mapping[str, Any]) -> list[Part]:
    """Return a section for each operation of a schema: what it does, its fields, and its answers."""
    found: list[Part] = []
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            rows = list(_fields(schema, content.get("schema", {})))
            answers = [(status, one.get("description", "")) for status, one in operation.get("responses", {}).items()]
            found.append(
                Part(
                    f"{method}{path.replace('/', '-')}",
                    f"{method.upper()} {path}",
                    (
                        paragraph(str(operation.get("description") or operation.get("summary", ""))),
                        *([table(("field", "type", "needed", "what it is"), rows)] if rows else []),
                        table(("status", "answer"), answers),
                    ),
                )
            )
    return found


def _fields(schema: Mapping[str, Any], part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Yield the fields of an object, with those of objects in it; of several kinds each is told apart."""
    resolved = _resolved(schema, part)
    options = [one for one in (*resolved.get("oneOf", ()), *resolved.get("anyOf", ())) if one.get("type") != "null"]
    if options and "properties" not in resolved:
        # A list of events has the same fields as one.
        for option in options:
            if option.get("type") != "array":
                yield from _fields(schema, option, prefix)
        return
    needed = set(resolved.get("required", ()))
    for name, field in resolved.get("properties", {}).items():
        inner = _resolved(schema, field)
        items = _resolved(schema, inner.get("items", {})) if inner.get("type") == "array" else inner
        said = str(field.get("description") or inner.get("description", "")).partition("\n")[0]
        yield f"{prefix}{name}", _type(schema, field), "yes" if name in needed else "no", said
        if "properties" in items:
            yield from _fields(schema, items, f"{prefix}{name}{'[]' if items is not inner else ''}.")


def _resolved(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        part = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
    return part


def _type(schema: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    resolved = _resolved(schema, part)
    if "const" in resolved or "enum" in resolved:
        return " or ".join(str(one) for one in resolved.get("enum", [resolved.get("const")]))
    if options := [*resolved.get("anyOf", ()), *resolved.get("oneOf", ())]:
        return " or ".join(dict.fromkeys(_type(schema, one) for one in options if one.get("type") != "null"))
    kind = str(resolved.get("type", "any"))
    return f"list of {_type(schema, resolved.get('items', {}))}" if kind == "array" else kind
