"""The manifest of an encoder version: what it is, what it was made from, and what happened to it since."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, AllowInfNan, ConfigDict, Field, Strict, StringConstraints, TypeAdapter
from pydantic import ValidationError as _Invalid

from hins_memory.common.strict_json import check_json, parse_json, read_bounded
from hins_memory.errors import EncoderError
from hins_memory.types import Ratio, Scope

__all__ = [
    "MANIFEST_BYTES",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Curves",
    "DataSummary",
    "Description",
    "GateVerdict",
    "Manifest",
    "Promotion",
    "RunRecord",
    "TrainingMetrics",
    "check_names",
    "is_version_id",
    "read_manifest",
]

#: The file in an encoder version's folder that says what it is.
MANIFEST_NAME = "hins_manifest.json"
#: How manifests are written now. Those of 0.1 do not say; they are read as 0 and mean the same.
SCHEMA_VERSION = 1
#: A manifest is at most this long: the curves of 100,000 steps and 500,000 conversations.
MANIFEST_BYTES = 32 * 2**20

# Seconds since the epoch, up to the year 3000: what every calendar and both databases can show.
_LATEST = 32_503_680_000.0
_VERSION_ID = re.compile(r"v(?:[0-9]{4}|[1-9][0-9]{4,7})-[0-9a-f]{8}")
_ERRORS_SHOWN = 3

_Name = Annotated[str, Strict(), StringConstraints(max_length=4096)]
_Digest = Annotated[str, Strict(), StringConstraints(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Strict(), Field(ge=0, le=2**53)]
_Number = Annotated[float, Strict(), AllowInfNan(False)]
_Numbers = tuple[_Number, ...]
_Time = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0, lt=_LATEST)]
_Flag = Annotated[bool, Strict()]
# Values that only people read; `parse_json` has seen to it that they are JSON.
_Values = Mapping[str, Any]
_Made = TypeVar("_Made", bound="Description")


def is_version_id(name: str) -> bool:
    """Tell whether a name has the form of a version's id, e.g. ``v0001-0123abcd``; there is one form of a number."""
    return _VERSION_ID.fullmatch(name) is not None


def check_names(names: Collection[str]) -> None:
    """Make sure that names of files mean one file each, inside the folder, on every file system.

    A name is relative, with ``/`` between its parts and equal to its own normal form: no part is empty, ``.`` or
    ``..``, and there is no backslash, colon or control character. No two names are equal but for case or Unicode
    normal form, and none is another's folder.

    Raises:
        ValueError: one is not so; says which.
    """
    folders: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        if any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts):
            raise ValueError(f"{name[:200]!r} is not a plain relative name of a file")
        if any(character in "\\:" or unicodedata.category(character).startswith("C") for character in name):
            raise ValueError(f"{name[:200]!r} holds a character that no name of a file needs")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            if folders.setdefault(_folded(folder), folder) != folder:
                raise ValueError(f"{name[:200]!r} is in a folder that differs from another only in case or form")
        if (other := taken.setdefault(_folded(name), name)) != name:
            raise ValueError(f"{name[:200]!r} and {other[:200]!r} are one name on some file systems")
    if both := sorted(taken.keys() & folders.keys()):
        raise ValueError(f"{taken[both[0]][:200]!r} is a file and a folder")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _checked_id(id: str) -> str:
    if not is_version_id(id):
        raise ValueError("it is not the id of a version")
    return id


def _checked_scope(key: str) -> str:
    if Scope.from_key(key).key != key:
        raise ValueError("it is not the key of a scope")
    return key


def _checked_files(files: Mapping[str, str]) -> Mapping[str, str]:
    check_names(files)
    return files


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    # A misspelt name is an error and not a value that is silently lost.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary(_Part):
    """What was learned from: counts by source of the positives and by tier of the negatives."""

    digest: _Name = ""
    examples: _Count = 0
    sources: Mapping[str, _Count] = field(default_factory=dict)
    tiers: Mapping[str, _Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMetrics(_Part):
    """What training measured: the loss of every step, seconds, and the best nDCG@10 on held-out sets, if any."""

    loss: _Numbers = ()
    train_seconds: _Number = 0.0
    best_held_out: _Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves(_Part):
    """Values of every step; `held_out` are pairs of step and nDCG@10. Seconds are since the start."""

    loss: _Numbers = ()
    learning_rate: _Numbers = ()
    gradient_norm: _Numbers = ()
    seconds: _Numbers = ()
    held_out: tuple[tuple[_Count, _Number], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(_Part):
    """The run that made a version: the name of its folder, the machine, and its curves."""

    id: _Name = ""
    hardware: _Values = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict(_Part):
    """One verdict of this project's gate. `passed` is None where the gate was not asked, because of `forced`.

    `ndcg` is nDCG@10 of the candidate on the `queries` held-out searches: as the agent's search ranks where that was
    replayed, else by the encoder alone.
    """

    time: _Time
    passed: _Flag | None = None
    forced: _Flag = False
    incumbent: _Name = ""
    gain: _Number | None = None
    failures: tuple[_Name, ...] = ()
    ndcg: _Number | None = None
    queries: _Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion(_Part):
    """Since when a version serves; `agent` is "" where it was made the current one without an agent."""

    time: _Time
    forced: _Flag = False
    agent: _Name = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description(_Part):
    """What is known of an encoder before it is a version.

    Attributes:
        schema_version: how it is written; 0 for hins-memory 0.1, which did not say.
        base: the version that training started from.
        parent: the version that it came from, if it was not trained.
        mode: of the training: full, lora, query.
        seed: of the training.
        settings: of the training.
        data: what was learned from.
        metrics: what training measured.
        scores: how the scores were brought to the base's scale, and what general retrieval lost.
        ratio: of the tiers in the log.
        mix: how many examples were synthetic.
        run: the run.
        versions: of the packages.
        document_space: names the space of the documents' vectors; "" for one of its own.
        keyword_weight: how much keywords count beside its cosines where a framework lets that be set: what the best
            result of a search by keyword adds to its cosine, 0 to 1; None for the framework's own sum.
        scope: the key of the scope that it is for alone (`Scope.key`); "" for a version that may serve everyone.
        trained_conversations: digests of the conversations that were trained on; of a version for one scope, of its
            queries.
        other: what hins-memory does not know, as the caller that added the version gave it.
    """

    schema_version: Annotated[int, Strict(), Field(ge=0, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    base: _Name = ""
    parent: _Name = ""
    mode: _Name = ""
    seed: Annotated[int, Strict()] | None = None
    settings: _Values = field(default_factory=dict)
    data: DataSummary = field(default_factory=DataSummary)
    metrics: TrainingMetrics = field(default_factory=TrainingMetrics)
    scores: _Values = field(default_factory=dict)
    ratio: Ratio | None = None
    mix: _Values = field(default_factory=dict)
    run: RunRecord = field(default_factory=RunRecord)
    versions: Mapping[str, _Name | None] = field(default_factory=dict)
    document_space: _Name = ""
    keyword_weight: Annotated[_Number, Field(ge=0, le=1)] | None = None
    scope: Annotated[_Name, AfterValidator(_checked_scope)] = ""
    trained_conversations: tuple[_Name, ...] = ()
    other: _Values = field(default_factory=dict)

    @classmethod
    def from_dict(cls: type[_Made], values: object) -> _Made:
        """Return what a dictionary of JSON values says; it is not changed.

        Raises:
            ValueError: it says something that cannot be; says what.
        """
        check_json(values)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        known = {one.name for one in fields(cls)} - {"other"}
        said = {"schema_version": 0} | {name: value for name, value in values.items() if name in known}
        said["other"] = {name: value for name, value in values.items() if name not in known}
        if isinstance(newer := said["schema_version"], int) and newer > SCHEMA_VERSION:
            raise ValueError(f"a newer hins-memory wrote it (schema {newer}): upgrade with pip install -U hins-memory")
        try:
            found: _Made = _adapters()[cls].validate_python(said)
        except _Invalid as error:
            raise ValueError(_said(error)) from error
        return found

    @classmethod
    def from_json(cls: type[_Made], content: bytes | str) -> _Made:
        """Return what a manifest's text says.

        Raises:
            ValueError: it is not JSON, or says something that cannot be.
        """
        content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        return cls.from_dict(parse_json(content, limit=MANIFEST_BYTES))

    @classmethod
    def given(cls: type[_Made], values: Mapping[str, Any]) -> _Made:
        """Return the description that a caller gave as a mapping, in today's schema.

        Raises:
            EncoderError: it is not JSON, or says something that cannot be.
        """
        try:
            plain = json.loads(json.dumps(dict(values)))
        except (TypeError, ValueError, RecursionError) as error:
            raise EncoderError(
                f"The manifest is not JSON: {error}", "Use numbers, strings, lists and dicts."
            ) from error
        try:
            return cls.from_dict({**plain, "schema_version": SCHEMA_VERSION})
        except ValueError as error:
            raise EncoderError(
                f"The manifest is not valid: {error}.", "`Description` says what each field may be."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values; what is not known is left out."""
        values = {name: value for name, value in asdict(self).items() if getattr(self, name) != _default(self, name)}
        found: dict[str, Any] = _plain({**values.pop("other", {}), **values})
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Description):
    """What is known of an encoder version.

    Attributes:
        id: the version's id.
        created: when it was made, seconds since the epoch.
        files: relative path -> SHA-256 of every file of its folder but the manifest.
        gates: verdicts of this project's gate, oldest first.
        promotions: since when it served, oldest first.
    """

    id: Annotated[_Name, AfterValidator(_checked_id)]
    created: _Time
    files: Annotated[Mapping[str, _Digest], AfterValidator(_checked_files)] = field(default_factory=dict)
    gates: tuple[GateVerdict, ...] = ()
    promotions: tuple[Promotion, ...] = ()

    def as_made(self) -> Manifest:
        """Return it without what happened to the version since: verdicts and promotions count where they were made."""
        return replace(self, gates=(), promotions=())

    def to_json(self) -> str:
        """Return the text of the manifest's file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def read_manifest(folder: Path) -> Manifest:
    """Return what the manifest in a folder says of the version as it was made.

    Raises:
        EncoderError: there is none that can be read.
    """
    path = folder / MANIFEST_NAME
    try:
        if not path.is_file():
            raise ValueError("it is missing or not a plain file")
        return Manifest.from_json(read_bounded(path, MANIFEST_BYTES)).as_made()
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}.", "Restore the version or train it again.") from error


@cache
def _adapters() -> dict[type[Any], TypeAdapter[Any]]:
    # Made at the first use, because that takes a few hundredths of a second.
    return {one: TypeAdapter(one) for one in (Description, Manifest)}


def _default(made: Description, name: str) -> Any:
    """Return the value of a field that says nothing."""
    if name == "schema_version":
        return 0
    one = type(made).__dataclass_fields__[name]
    return one.default_factory() if callable(one.default_factory) else one.default


def _plain(value: Any) -> Any:
    """Return tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _said(error: _Invalid) -> str:
    """Return what is wrong, without the values: they may be long, and are a stranger's."""
    found = [
        f"{'.'.join(str(part)[:60] for part in one['loc'])}: {one['msg'][:200]}"
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    more = [f"and {len(found) - _ERRORS_SHOWN} more"] if len(found) > _ERRORS_SHOWN else []
    return "; ".join((*found[:_ERRORS_SHOWN], *more))
