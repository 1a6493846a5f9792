"""Where a store is, in words without secrets: what `store_id` is made of."""

from __future__ import annotations

import re
import uuid
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["address_in", "name_in_process", "without_secrets"]

# A pair of a connection string as PostgreSQL's own library takes it: host=db dbname='a name'.
_PAIR = re.compile(r"(\w+)\s*=\s*('(?:\\.|[^'])*'|\S*)")
# By their ids: not every object can be a key.
_names: dict[int, str] = {}
_URLS = ("url", "connection_string", "cluster_url", "cloud_id")


def address_in(config: Any) -> str:
    """Return the address in an object with a store's settings: of its server, or of its folder; else ``default``."""
    for name in _URLS:
        if value := getattr(config, name, None):
            return without_secrets(str(value))
    host, port = getattr(config, "host", None), getattr(config, "port", None)
    if host:
        place = f"{host}:{port}" if port else str(host)
        database = getattr(config, "dbname", None) or getattr(config, "database", None)
        return f"{place}/{database}" if database else place
    path = getattr(config, "path", None)
    return str(Path(path).resolve()) if path else "default"


def name_in_process(store: Any) -> str:
    """Return what identifies an object that lives in the memory of this process; no other process has it."""
    if (name := _names.get(id(store))) is None:
        name = _names[id(store)] = uuid.uuid4().hex
        weakref.finalize(store, _names.pop, id(store), None)
    return name


def without_secrets(url: str) -> str:
    """Return the address in a URL or connection string, without user, password and options."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        if _PAIR.match(url.strip()):
            pairs = {name: value.strip("'") for name, value in _PAIR.findall(url)}
            host, port = pairs.get("host") or pairs.get("hostaddr") or "", pairs.get("port")
            return f"{host}{f':{port}' if port else ''}/{pairs.get('dbname', '')}"
        # Without "//", urlsplit would take a user's name before a colon for the scheme.
        return url.rpartition("@")[2].partition("?")[0]
    # A password may contain characters that mean something in a URL: everything before the last @ is removed, unparsed.
    if "@" in rest.partition("?")[0] or not _parse_address(scheme, rest):
        rest = rest.rpartition("@")[2]
    return _parse_address(scheme, rest)


def _parse_address(scheme: str, rest: str) -> str:
    """Return the address in a URL, or "" when it cannot be parsed."""
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    # A server behind a Unix socket is named by the socket's folder.
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
