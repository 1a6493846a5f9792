"""What the contract suite does not see of Hindsight: its own loading of the extension, reflections, and towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hindsight_world import needs_database  # sets what Hindsight reads when it is imported

pytest.importorskip("hindsight_api", reason="needs an environment with the extra hindsight")

from hindsight_api.engine.response_models import ReflectResult
from hindsight_api.extensions import OperationValidatorExtension, ValidationResult, load_extension
from hindsight_api.extensions.operation_validator import ReflectResultContext
from hindsight_world import awaited, close_engine, database, open_engine, request
from hins_adapter_hindsight import HinsEmbeddings
from hins_adapter_hindsight.plugin import plugin

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import HinsError
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.swapping import rollback_agent, swap_agent
from hins_memory.testing.encoders import random_encoder, random_tower

pytestmark = needs_database
FACT = "Ann plays the cello."


def one_log(settings: Settings) -> Any:
    assert flush_all()
    (log,) = LogReader(open_database(settings.database_url)).scope_logs()
    return log


class Refusing(OperationValidatorExtension):
    """A validator of somebody else's."""

    async def validate_retain(self, ctx: Any) -> Any:
        return ValidationResult.accept()

    async def validate_recall(self, ctx: Any) -> Any:
        return ValidationResult.reject("not you") if ctx.bank_id == "bob" else ValidationResult.accept()

    async def validate_reflect(self, ctx: Any) -> Any:
        return ValidationResult.accept()


def test_hindsight_loads_the_extension_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has no attached object: the extension alone records, in the project of the environment."""
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HINDSIGHT_API_OPERATION_VALIDATOR_EXTENSION", "hins_adapter_hindsight:HinsExtension")
    extension = load_extension("OPERATION_VALIDATOR", OperationValidatorExtension)
    embeddings = HinsEmbeddings(random_encoder(tmp_path / "base"))
    engine = open_engine(database(str(tmp_path)), embeddings, operation_validator=extension)

    async def reflect() -> None:
        # What the engine calls in a `reflect`, whose language model there is none of here.
        await extension.validate_reflect(None)
        await engine.recall_async("ann", "Who plays?", request_context=request())
        said = ReflectResultContext("ann", "Who plays?", request(), None, None, ReflectResult(text="Ann.", based_on={}))
        await extension.on_reflect_complete(said)

    awaited(engine.retain_async("ann", FACT, document_id="monday", request_context=request()))
    awaited(reflect())
    close_engine(engine)
    awaited(extension.on_shutdown())
    log = one_log(Settings(home=tmp_path / "home"))
    assert [(one.text, one.conversation) for one in log.memories] == [(FACT, "monday")]
    assert [one.text for one in log.retrievals[0].results] == [FACT]
    assert [(one.text, one.retrieval_id) for one in log.answers] == [("Ann.", log.retrievals[0].id)]


def test_another_extension_still_decides(tmp_path: Path, settings: Settings) -> None:
    embeddings = HinsEmbeddings(random_encoder(tmp_path / "base"))
    engine = open_engine(database(str(tmp_path)), embeddings, operation_validator=Refusing({}))
    plugin.hins_attach(engine, {"settings": settings})
    for bank in ("ann", "bob"):
        awaited(engine.retain_async(bank, FACT, request_context=request()))
    awaited(engine.recall_async("ann", FACT, request_context=request()))
    with pytest.raises(Exception, match="not you"):
        awaited(engine.recall_async("bob", FACT, request_context=request()))
    plugin.hins_detach(engine)
    close_engine(engine)
    assert flush_all()
    logs = LogReader(open_database(settings.database_url)).scope_logs()
    assert {log.scope.user: len(log.retrievals) for log in logs} == {"ann": 1, "bob": 0}


def test_a_tower_embeds_queries_and_other_vectors_are_refused(tmp_path: Path, settings: Settings) -> None:
    base = random_encoder(tmp_path / "base")
    engine = open_engine(database(str(tmp_path)), HinsEmbeddings(base))
    plugin.hins_attach(engine, {"settings": settings})
    awaited(engine.retain_async("ann", FACT, request_context=request()))
    agent, registry = plugin.hins_agent(engine), Registry(settings)
    assert agent is not None
    load = EncoderSource(registry, base).by_version
    first = load(agent.encoder_version)
    about = {"mode": "tower", "document_space": first.space}
    tower = load(registry.add(random_tower(base, tmp_path / "tower"), {"base": "random", **about}).id)
    other = load(registry.add(random_encoder(tmp_path / "other", seed=2), {"base": "random"}).id)

    def asked() -> Any:
        found = awaited(engine.recall_async("ann", FACT, request_context=request()))
        return found.results[0].scores.semantic

    before = asked()
    swap_agent(agent, tower.version, tower, registry)
    (embedded,) = awaited(engine.embeddings.encode_query([FACT]))
    assert embedded == pytest.approx(tower.encode([FACT], role="query")[0].tolist(), abs=1e-5)
    assert asked() != pytest.approx(before, abs=1e-3)
    with pytest.raises(HinsError, match="cannot be replaced"):
        swap_agent(agent, other.version, other, registry)
    rollback_agent(agent, registry, load)
    assert asked() == pytest.approx(before, abs=1e-3)
    plugin.hins_detach(engine)
    close_engine(engine)
    assert [one.encoder_version for one in one_log(settings).retrievals] == [
        first.version,
        tower.version,
        first.version,
    ]
