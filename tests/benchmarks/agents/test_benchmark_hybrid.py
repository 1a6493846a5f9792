"""Mem0's hybrid search in the benchmark: BM25 and entities really count, and the gate replays them."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import fusion
import locomo
import pytest
from hins_adapter_mem0 import Memory
from hins_adapter_mem0.attaching import agent_of
from mem0.utils import spacy_models

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.errors import ConfigError
from hins_memory.plugins import ranking_of
from hins_memory.types import Scope
from parts.agents.hybrid import enable_hybrid


@pytest.mark.parametrize("package", ["fastembed", "spacy"])
def test_a_missing_package_is_named_with_what_installs_it(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastembed", sys)
    monkeypatch.setitem(sys.modules, "spacy", sys)
    monkeypatch.setitem(sys.modules, package, None)
    assert locomo.main(["--hybrid", "--data", "sample"]) == ConfigError.exit_code
    told = capsys.readouterr().err
    assert f"--hybrid needs the package {package}" in told
    assert 'pip install "hins-memory[mem0,hybrid]"' in told


@pytest.fixture
def as_installed(monkeypatch):
    """What `enable_hybrid` changes in this process is put back at the end."""
    fastembed = pytest.importorskip("fastembed", reason='needs the extra "hybrid"')
    pytest.importorskip("spacy", reason='needs the extra "hybrid"')
    monkeypatch.setattr(fastembed, "SparseTextEmbedding", fastembed.SparseTextEmbedding)
    for name in ("_nlp_full", "_nlp_lemma", "_load_failed_full", "_load_failed_lemma"):
        monkeypatch.setattr(spacy_models, name, vars(spacy_models)[name])


@pytest.mark.slow
@pytest.mark.usefixtures("as_installed", "shallow_stock")
def test_the_benchmark_scores_what_mem0_fuses_beside_the_encoder_alone(tiny_file, tmp_path):
    result = tmp_path / "result.json"
    arguments = ["--hybrid", "--encoders", "stock", "--data", str(tiny_file), "--quick", "--cache", str(tmp_path)]
    assert locomo.main([*arguments, "--json", str(result)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    (search,) = found["settings"]["fused_search"]
    assert search["final_score"] != search["semantic_score"]
    assert search["bm25_score"] > 0
    assert "fastembed" in found["settings"]["hybrid"]["bm25"]
    figures = found["figures"]
    assert figures["stock_fused_searches"] > 80
    assert figures["stock_ndcg10"] != figures["stock_alone_ndcg10"]
    assert figures["stock_alone_recall10"] > 50
    # What replays Mem0's sum from cosines and BM25 has the same figures.
    replay = ["--encoders", "stock", "--data", str(tiny_file), "--quick", "--folds", "2", "--json", str(result)]
    assert fusion.main(replay) == 0
    replayed = json.loads(result.read_text(encoding="utf-8"))["figures"]
    for served, name in (("stock", "stock_mem0"), ("stock_alone", "stock_alone")):
        assert replayed[f"{name}_ndcg10"] == pytest.approx(figures[f"{served}_ndcg10"])
        assert replayed[f"{name}_recall10"] == pytest.approx(figures[f"{served}_recall10"])
    # As they are kept, a second run is the same without playing anything.
    assert locomo.main([*arguments, "--json", str(result)]) == 0
    assert json.loads(result.read_text(encoding="utf-8"))["figures"] == figures


@pytest.mark.slow
@pytest.mark.usefixtures("as_installed", "shallow_base")
def test_a_replay_with_bm25_and_entities_ranks_as_mem0_does(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enable_hybrid(tmp_path / "bm25")
    (conversation,) = load_sample()[:1]
    texts = [f"{turn.speaker}: {turn.text}" for session in conversation.sessions for turn in session.turns]
    filters = {"user_id": "ann"}
    with contextlib.closing(Memory(settings=settings, capture=False)) as memory:
        rows = memory.add([{"role": "user", "content": text} for text in texts], user_id="ann", infer=False)["results"]
        for row in rows:
            # As Mem0 does for the memories that it extracts.
            memory._link_entities_for_memory(row["id"], row["memory"], filters)
        agent = agent_of(memory)
        ranking = ranking_of(agent)
        assert ranking.signals == ("keywords", "entities")
        encoder = memory.embedding_model.encoder
        own = agent.current
        monkeypatch.setattr(encoder, "keyword_weight", 0.1)
        weighted = replace(own)
        vectors = encoder.encode([row["memory"] for row in rows])
        moved = full = 0
        for question in conversation.questions[:20]:
            cosines = vectors @ encoder.encode([question.question], role="query")[0]
            order = sorted(range(len(rows)), key=lambda row, cosines=cosines: -cosines[row])
            found = [(rows[row]["id"], float(cosines[row])) for row in order]
            served = [one["id"] for one in memory.search(question.question, filters=filters)["results"]]
            assert ranking.rank(Scope(user="ann"), question.question, [found[:100]]) == [served]
            moved += served != [name for name, _ in found[:20]]
            # The same with a keyword weight: the best match adds as much as it says.
            agent._current = weighted
            results = memory.search(question.question, filters=filters, explain=True)["results"]
            agent._current = own
            assert max(one["score_details"]["bm25_score"] for one in results) <= 0.1 + 1e-6
            assert ranking.rank(Scope(user="ann"), question.question, [found[:100]], [0.1]) == [
                [one["id"] for one in results]
            ]
            full += any(abs(one["score_details"]["bm25_score"] - 0.1) < 1e-6 for one in results)
        assert full > 10
        assert moved > 10
