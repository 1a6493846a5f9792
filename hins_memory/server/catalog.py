"""Which models a server has, and which version the id of a model means; other processes' swaps are followed."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hins_memory.encoders.encoder import encoder_version, resolve_model
from hins_memory.encoders.manifest import is_version_id
from hins_memory.encoders.model_files import needs_role
from hins_memory.encoders.starter import default_base, is_starter, starters
from hins_memory.errors import EncoderError, LogError
from hins_memory.registry.http_versions import HttpVersions
from hins_memory.registry.registry import Registry
from hins_memory.server.problems import ApiError

__all__ = ["PREFIX", "Catalog", "Model", "model_id"]

logger = logging.getLogger(__name__)

#: What the ids of models begin with.
PREFIX = "hins-"
# A version whose digest is shortened to four digits or more.
_SHORT = re.compile(r"v(?:[0-9]{4}|[1-9][0-9]{4,7})-[0-9a-f]{4,8}")
# What other processes changed is read again after this time.
_FRESH_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Model:
    """One encoder that can be asked for.

    Attributes:
        version: the encoder version.
        space: of its documents' vectors.
        source: what it is loaded from, as for `Encoder.load`.
        needs_role: whether it embeds queries otherwise than documents.
        scope: the key of the scope that it was made for; "" for everyone.
        created: seconds since the epoch; 0 where that is not known.
    """

    version: str
    space: str
    source: str | Path
    needs_role: bool
    scope: str = ""
    created: float = 0.0

    @property
    def id(self) -> str:
        """What clients call it."""
        return model_id(self.version)


@dataclass(frozen=True, slots=True)
class _State:
    models: Mapping[str, Model] = field(default_factory=dict)
    current: str = ""
    live: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    noted: Mapping[str, bool] = field(default_factory=dict)


class Catalog:
    """The models of a project. Safe with several threads.

    Args:
        registry: the project's registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._http = HttpVersions(registry.settings)
        self._state = _State()
        self._bases: dict[str, Model] = {}
        self._missing: set[str] = set()
        self._failing = False
        self._read_at = float("-inf")
        self._refreshing = threading.Lock()

    @property
    def stale(self) -> bool:
        """Whether it is time to look what other processes changed."""
        return time.monotonic() - self._read_at >= _FRESH_SECONDS

    @property
    def current(self) -> str:
        """The version that serves the project; that of the base where no other was promoted."""
        return self._state.current or next(iter(self._bases), "")

    def refresh(self) -> None:
        """Read what other processes changed. Where that fails, what is known stays, and a warning is logged."""
        with self._refreshing:
            if not self.stale:
                return
            try:
                self._read()
                self._failing = False
            except (LogError, EncoderError) as error:
                if not self._failing:
                    logger.warning("Whether another version serves is not known now: %s", error)
                self._failing = True
            self._read_at = time.monotonic()

    def models(self) -> list[Model]:
        """Return the models that may be asked for, bases first, then versions by number."""
        return [one for one in self._state.models.values() if not self._state.noted.get(one.version)]

    def version(self, version: str) -> Model | None:
        """Return the model of a version that is not released; None for others."""
        return None if self._state.noted.get(version) else self._state.models.get(version)

    def live(self, store: str) -> tuple[str, str] | None:
        """Return the version and the collections' suffix that serve a store that hins swaps; None for other stores."""
        return self._state.live.get(store)

    def find(self, name: str) -> Model:
        """Return the model of an id, without a role.

        Raises:
            ApiError: there is none, it was released, or a shortened one means several.
        """
        short = name.removeprefix(PREFIX)
        models = self._state.models
        found = [one for one in models.values() if name in (one.id, one.version)]
        if not found and _SHORT.fullmatch(short):
            found = [one for one in models.values() if is_version_id(one.version) and one.version.startswith(short)]
        if not found:
            known = ", ".join(one.id for one in self.models()[-5:]) or "none"
            message = f"There is no model {name[:100]!r}. GET /v1/models lists them; the newest: {known}."
            raise ApiError(404, message, param="model", code="model_not_found")
        if len(found) > 1:
            several = " and ".join(one.id for one in found)
            raise ApiError(404, f"{name!r} is short for {several}: say which.", param="model", code="model_ambiguous")
        if self._state.noted.get(found[0].version):
            message = (
                f"{found[0].id} was released. Embed the store again with another model; or take the release back: "
                f"`hins encoders release {found[0].version} --undo`."
            )
            raise ApiError(404, message, param="model", code="model_released")
        return found[0]

    def is_noted(self, model: Model) -> bool:
        """Tell whether it is noted that clients have vectors of a version; of bases it need not be."""
        return model.version in self._state.noted or not is_version_id(model.version)

    def note(self, model: Model) -> None:
        """Note that a client has vectors of a version, so that it is kept until it is released.

        Raises:
            LogError: the database cannot be written; the client must not get vectors of what may be removed.
        """
        self._http.note(model.version)
        self._state = replace(self._state, noted={model.version: False, **self._state.noted})

    def _read(self) -> None:
        if not self._bases:
            self._bases = _bases()
            # Complete folders that are not registered yet are registered by this.
            self._registry.versions()
        before = self._state.models
        models = dict(self._bases)
        for id in self._registry.ids():
            if (model := before.get(id) or self._model(id)) is not None:
                models[id] = model
        live = {one.agent_key: (one.version, one.suffix) for one in self._registry.indexes() if one.state == "live"}
        self._state = _State(models, self._registry.current_id(), live, self._http.read())

    def _model(self, id: str) -> Model | None:
        try:
            found = self._registry.get(id)
        except EncoderError as error:
            if id not in self._missing:
                logger.warning("%s is not served: %s", id, error)
                self._missing.add(id)
            return None
        space = found.manifest.document_space or id
        return Model(id, space, found.path, needs_role(found.path), found.manifest.scope, found.manifest.created)


def model_id(version: str) -> str:
    """Return what clients call a version."""
    return version if version.startswith(PREFIX) else PREFIX + version


def _bases() -> dict[str, Model]:
    """Return the models that a store may have been opened with before there was a version, the default first."""
    found: dict[str, Model] = {}
    for name in dict.fromkeys((default_base(), "stock", *starters())):
        try:
            version = encoder_version(name)
            folder = Path(resolve_model("stock" if is_starter(name) else name))
        except EncoderError as error:
            logger.warning("The base %s is not served: %s", name, error)
            continue
        # Of one that is not a folder here it is not known, so that the role has to be said.
        found.setdefault(version, Model(version, version, name, needs_role(folder) if folder.is_dir() else True))
    return found
