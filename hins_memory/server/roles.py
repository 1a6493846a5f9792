"""What a request asks for: a version and a side of the search, from the model's id, `input_type` and headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hins_memory.registry.registry import Registry
from hins_memory.registry.towers import ScopedTowers
from hins_memory.server.catalog import PREFIX, Catalog, Model
from hins_memory.server.problems import ApiError
from hins_memory.types import Role, Scope

__all__ = ["SCOPE_HEADER", "STORE_HEADER", "Target", "Targets", "role_of", "split_role"]

CURRENT = f"{PREFIX}current"
#: A header that names a store that hins swaps, as `hins encoders show` writes it.
STORE_HEADER = "X-Hins-Store"
#: A header that says whose search it is, as `hins log show` writes it, e.g. ``user=ann``.
SCOPE_HEADER = "X-Hins-Scope"
# As NVIDIA, Cohere, Voyage and Jina call them, beside our own names.
_ROLES: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What embeds a request.

    Attributes:
        model: the encoder.
        role: of the texts.
        stored: the model whose vectors the client stores, as far as is known: it is kept until it is released.
        headers: what the response says beside the vectors.
    """

    model: Model
    role: Role
    stored: Model | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def role_of(value: object, param: str = "input_type") -> Role | None:
    """Return the role that a request names; None where it names none.

    Raises:
        ApiError: it is not the name of one.
    """
    if value is None:
        return None
    if not isinstance(value, str) or value not in _ROLES:
        names = ", ".join(_ROLES)
        raise ApiError(400, f"{param} has to be one of {names}.", param=param)
    return _ROLES[value]


def split_role(name: str) -> tuple[str, Role | None]:
    """Return the id of a model without the role that may stand after it, and the role."""
    plain, _, suffix = name.rpartition(":")
    return (plain, role_of(suffix)) if plain and suffix in ("query", "document") else (name, None)


class Targets:
    """Finds what embeds a request.

    Args:
        catalog: the models.
        registry: the project's registry.
    """

    def __init__(self, catalog: Catalog, registry: Registry) -> None:
        self._catalog = catalog
        self._towers = ScopedTowers(registry)

    def find(self, name: str, role: Role | None, header: Callable[[str], str]) -> Target:
        """Return what embeds a request.

        Args:
            name: the model's id, with or without a role.
            role: that the request names beside the id.
            header: returns a header of the request, "" where it is not there.

        Raises:
            ApiError: there is no such model, or it cannot be asked so.
        """
        name, named = split_role(name)
        if role and named and role != named:
            raise ApiError(400, f"The id says {named}, and input_type {role}.", param="input_type")
        role = role or named
        if name == CURRENT:
            return self._of_store(role, header(STORE_HEADER))
        if name.startswith(f"{CURRENT}@"):
            return self._newest(self._catalog.find(name.removeprefix(f"{CURRENT}@")), role, header(SCOPE_HEADER))
        if header(SCOPE_HEADER):
            message = f"{SCOPE_HEADER} goes with {CURRENT}@VERSION: {name[:100]!r} names its encoder already."
            raise ApiError(400, message, param="model")
        model = self._catalog.find(name)
        if role is None and model.needs_role:
            raise _without_role(model.id)
        return Target(model, role or "document", model)

    def _of_store(self, role: Role | None, store: str) -> Target:
        live = self._catalog.live(store) if store else None
        model = self._catalog.version(live[0]) if live else None
        if live is None or model is None:
            serving = self._catalog.version(self._catalog.current)
            example = serving.id if serving else f"{PREFIX}VERSION"
            what = f"hins swaps no store {store[:100]!r}. " if store else ""
            raise ApiError(
                400,
                f"{what}{CURRENT} changes with every swap, and a store that hins does not swap would hold vectors of "
                f"two encoders. Use {example}, or {CURRENT}@{example.removeprefix(PREFIX)}, whose documents stay and "
                f"whose queries improve; for a store that hins swaps, name it in the header {STORE_HEADER}.",
                param="model",
                code="model_not_pinned",
            )
        if role != "query":
            raise ApiError(
                400,
                f"{CURRENT} embeds queries alone (input_type query): a document that is written past hins would be "
                "missing in the index that a swap builds. Write it through the store's adapter.",
                param="input_type",
                code="role_required",
            )
        return Target(model, "query", headers={"X-Hins-Index": live[1]})

    def _newest(self, documents: Model, role: Role | None, scope: str) -> Target:
        if role is None:
            raise _without_role(f"{CURRENT}@{documents.version}")
        if role == "document":
            return Target(documents, role, documents)
        version = self._of_scope(scope, documents.space) if scope else ""
        found = self._catalog.version(version) or self._catalog.version(self._catalog.current)
        # Never an encoder of other vectors than those that the client stored.
        if found is None or found.space != documents.space or (found.scope and found.version != version):
            found = documents
        return Target(found, role, documents)

    def _of_scope(self, key: str, space: str) -> str:
        try:
            return self._towers.version_of(Scope.from_key(key), space)
        except ValueError as error:
            raise ApiError(400, f"{SCOPE_HEADER} names no scope: write e.g. user=ann.") from error


def _without_role(name: str) -> ApiError:
    return ApiError(
        400,
        f"{name} embeds queries otherwise than documents: send input_type (query or document), or ask for "
        f"{name}:query and {name}:document.",
        param="input_type",
        code="role_required",
    )
