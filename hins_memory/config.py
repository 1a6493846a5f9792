"""Where things live on disk and how capture behaves, and the file `hins.toml` that settings are read from."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hins_memory.errors import ConfigError

__all__ = ["FILE_NAME", "TABLES", "Settings", "SettingsFile", "read_settings_file"]

#: The file of settings in a project's folder; the environment's ``HINS_CONFIG`` names another one.
FILE_NAME = "hins.toml"
#: Its tables. `Settings` reads the first, `hins_memory.loop.settings.LoopSettings` the others.
TABLES = ("capture", "mine", "train", "gate")
#: What stands before the tables.
TOP_LEVEL = ("base", "seed", "deep", "deep_gain", "ray", "workers")

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_UNSET: Any = object()
_DEFAULTS: dict[str, Any] = {
    "log_url": "",
    "store": "",
    "capture": True,
    "queue_bytes": 128 * 2**20,
}
#: Settings of earlier versions, by table: what holds instead.
REMOVED = {
    "": {
        "holdout": "set held_out_share and min_queries in [gate]",
        "mix": "synthetic examples fade with traffic, half of them are left at 500 captured ones",
    },
    "capture": {
        "queue_size": "at most 10,000 retrievals wait for the writer, and queue_bytes bytes",
        "flush_seconds": "events are committed within a second, mostly within 0.2",
    },
    "gate": {
        "samples": "the bootstrap takes 10,000",
        "min_scope_queries": "a scope with at least 20 held-out queries is a large one",
    },
    "mine": {
        "top_k": "the first 20 memories of a search count",
        "max_positives": "at most 3 memories of a search become positives",
        "near_pool": "negatives of a tier are sampled from the 8 nearest",
        "restated_words": "7 tenths of the rare words make it the same fact",
        "followup_seconds": "a follow-up comes within 5 minutes",
        "max_chars": "texts of examples are cut to 8,000 characters",
        "exact_rows": "an owner with over 20,000 memories is searched by an index",
    },
    "train": {
        "negatives": "training uses all negatives that were mined: set negatives in [mine]",
        "max_general_loss": "set max_general_loss in [gate]; training keeps to nine tenths of it",
        "warmup": "the rate rises over a tenth of the steps",
        "gradient_cache": "gradients are cached from 64 micro-batches on: set a smaller micro_batch_size",
        "eval_steps": "early stopping looks at the held-out traffic after each eighth of the steps",
        "checkpoint_seconds": "a checkpoint is written about every minute",
        "checkpoint_steps": "a checkpoint is written about every minute",
    },
}
#: Settings with a new name, by table; the old one still works.
RENAMED = {"train": {"anchor": "calibrate_scores", "cutoffs": "score_thresholds", "soup": "averaging_weight"}}
_PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _default_home() -> Path:
    return Path(os.environ.get("HINS_HOME") or "~/.hins").expanduser()


def _default_project() -> str:
    return os.environ.get("HINS_PROJECT") or "default"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that is not known: the nearest known one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known names: {', '.join(names)}."


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file of settings holds.

    Attributes:
        path: the file; None when there is none, and `content` is empty.
        content: its names and tables, not checked yet but for their names.
    """

    path: Path | None = None
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def values(self, table: str, kind: type, without: Iterable[str] = ()) -> dict[str, Any]:
        """Return the checked values of a table, by the names of a dataclass's fields.

        Args:
            table: the table's name; "" stands for what comes before the tables.
            kind: the dataclass.
            without: fields that the table cannot set.

        Raises:
            ConfigError: a name is not known, or a value is not of the field's type.
        """
        found = self.content if not table else self.content.get(table, {})
        if not table:
            found = {name: value for name, value in found.items() if name in TOP_LEVEL}
        hints = get_type_hints(kind)
        known, renamed = {one.name for one in fields(kind)} - set(without), RENAMED.get(table, {})
        for name in found:
            if now := REMOVED.get(table, {}).get(name):
                raise ConfigError(f"{self._place(table)}: {name} is not a setting any more: {now}.", "Delete the line.")
            if name in renamed and renamed[name] not in found:
                new = renamed[name]
                logger.warning("%s: %s is now %s; the old name works for now.", self._place(table), name, new)
            elif name not in known:
                raise ConfigError(f"{self._place(table)} has an unknown name: {name}.", _nearest(name, known))
        named = {renamed.get(name, name): value for name, value in found.items()}
        return {name: self._checked(table, name, value, hints[name]) for name, value in named.items()}

    def build(self, table: str, kind: type[_T], without: Iterable[str] = ()) -> _T:
        """Return a dataclass with a table's values.

        Raises:
            ConfigError: as for `values`, or the dataclass refuses a value.
        """
        found = self.values(table, kind, without)
        try:
            return kind(**found)
        except ConfigError as error:
            raise self.error(table, error) from error

    def error(self, table: str, error: ConfigError) -> ConfigError:
        """Return an error about a table's values that says where they are."""
        return ConfigError(f"{self._place(table)}: {error.problem}", error.hint)

    def _place(self, table: str) -> str:
        return f"{self.path} [{table}]" if table else str(self.path)

    def _checked(self, table: str, name: str, value: Any, hint: Any) -> Any:
        # Imported here: most processes have no such file.
        from pydantic import TypeAdapter, ValidationError

        try:
            # As JSON, in which an array may be a tuple and a table may be a dataclass; strict otherwise.
            return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
        except (ValidationError, TypeError, ValueError) as error:
            # Without the value, which may be a password.
            why = error.errors(include_input=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ConfigError(f"{self._place(table)}: {name} is not valid: {why}.", "Correct the file.") from error


def read_settings_file(root: Path) -> SettingsFile:
    """Read the settings file of a project: ``HINS_CONFIG``, else `hins.toml` in the project's folder, if it is there.

    Args:
        root: the project's folder.

    Raises:
        ConfigError: the file is not there although ``HINS_CONFIG`` names it, cannot be read, is not TOML, or has a
            name that stands for nothing.
    """
    named = os.environ.get("HINS_CONFIG", "")
    path = Path(named).expanduser() if named else root / FILE_NAME
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not named:
            return SettingsFile()
        raise ConfigError(f"There is no settings file {path}.", "Correct or unset HINS_CONFIG.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The settings file {path} cannot be read: {error}.", "Write it as TOML, in UTF-8."
        ) from error
    for name, value in content.items():
        if now := REMOVED[""].get(name):
            raise ConfigError(f"{path}: {name} is not a setting any more: {now}.", "Delete it.")
        if name not in TABLES + TOP_LEVEL:
            raise ConfigError(f"{path} has an unknown name: {name}.", _nearest(name, TABLES + TOP_LEVEL))
        if (name in TABLES) != isinstance(value, dict):
            kind, spelling = ("a table", f"[{name}]") if name in TABLES else ("a value", f"{name} = ...")
            raise ConfigError(f"{path}: {name} has to be {kind}.", f"Write {spelling}")
    return SettingsFile(path, content)


def _environment() -> dict[str, Any]:
    """Return what the environment says of a project's capture."""
    found: dict[str, Any] = {}
    if url := os.environ.get("HINS_LOG_URL"):
        found["log_url"] = url
    if store := os.environ.get("HINS_STORE"):
        found["store"] = store
    if capture := os.environ.get("HINS_CAPTURE"):
        found["capture"] = capture not in ("0", "false", "no")
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one project.

    All but the first two are also read from the environment or the table ``[capture]`` of the project's `hins.toml`;
    an argument wins over the environment, the environment over the file, the file over the default.

    Args:
        home: the root folder of all projects (environment: ``HINS_HOME``, default ``~/.hins``).
        project: the project's name, a folder under `home` (environment: ``HINS_PROJECT``, default ``default``).
        log_url: SQLAlchemy URL of the interaction log; empty means SQLite under the project's folder
            (environment: ``HINS_LOG_URL``).
        store: fsspec URL of the place where all hosts of the project find its encoder versions, e.g.
            ``s3://bucket/folder``; empty means this host's disk alone (environment: ``HINS_STORE``).
        capture: whether interactions are recorded at all (environment: ``HINS_CAPTURE=0`` turns it off).
        queue_bytes: how many bytes of events may wait; see `Capture`.

    Raises:
        ConfigError: a value is out of range, the project's name is not a safe folder name, or the settings file is
            not valid.
    """

    home: Path = field(default_factory=_default_home)
    project: str = field(default_factory=_default_project)
    # Not shown: it may hold a password.
    log_url: str = field(default=_UNSET, repr=False)
    store: str = field(default=_UNSET, repr=False)
    capture: bool = _UNSET
    queue_bytes: int = _UNSET

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", Path(self.home).expanduser())
        if not _PROJECT_NAME.fullmatch(self.project):
            raise ConfigError(
                f"{self.project!r} is not a project name.",
                "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
            )
        missing = {name for name in _DEFAULTS if getattr(self, name) is _UNSET}
        file = self.file() if missing else SettingsFile()
        in_file = file.values("capture", Settings, without=("home", "project"))
        found = _DEFAULTS | in_file | _environment()
        for name in missing:
            object.__setattr__(self, name, found[name])
        try:
            self._check()
        except ConfigError as error:
            wrong = [name for name in missing if f"{name} is" in error.problem and name in in_file]
            raise (file.error("capture", error) if wrong else error) from error

    def _check(self) -> None:
        if self.store and "://" not in self.store:
            raise ConfigError(
                f"store is {self.store!r}, which is not a URL.", "Use e.g. s3://bucket/folder or file:///mnt/share."
            )
        if self.queue_bytes < 1:
            raise ConfigError(f"queue_bytes is {self.queue_bytes}.", "Use at least 1.")

    def file(self) -> SettingsFile:
        """Read the project's settings file.

        Raises:
            ConfigError: see `read_settings_file`.
        """
        return read_settings_file(self.root)

    @property
    def root(self) -> Path:
        """The project's own folder."""
        return self.home / self.project

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the log and the registry."""
        if self.log_url:
            return self.log_url
        from sqlalchemy import URL

        # Not by hand: the path may hold characters that mean something in a URL.
        return URL.create("sqlite", database=str(self.root / "log.db")).render_as_string()

    @property
    def encoders(self) -> Path:
        """The folder of the project's encoder versions."""
        return self.root / "encoders"

    @property
    def training(self) -> Path:
        """The folder of trainings that are not finished."""
        return self.root / "training"

    def agent_folder(self, name: str) -> Path:
        """Return the folder that an agent's own stores live under by default."""
        return self.root / name
