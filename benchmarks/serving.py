"""How fast queries are embedded: in the process and over HTTP, by torch and by ONNX, beside other servers.

    python benchmarks/serving.py --json result.json
    python benchmarks/serving.py --flips 600 --json flips.json

One model, all-MiniLM-L6-v2, in the same run. First one text at a time in this process: Mem0's own Hugging Face
embedder, the encoder on torch, and its ONNX exports. The one in 8 bits had to pass the gate on the packaged
conversations. Then the servers, each asked by 1, 8 and 64 clients that ask one text after another over a connection of
their own: `hins serve` with torch and with ONNX, sentence-transformers behind FastAPI without batches, and
infinity-emb where --infinity names its program, because it needs other packages than these. No text is asked twice.
All take turns: in the process 50 texts each; each round asks every server in another order, and the median of the
rounds counts. "ms of processor" is the server's own time for a request: what other processes do on the machine changes
it little.

With --flips, `hins serve` alone is asked for queries and documents, of fixed versions and of the newest, while the
newest one changes every 20 seconds; each vector is compared with what the version that answered makes of the text.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder, resolve_model
from hins_memory.encoders.onnx.session import OnnxEncoder
from hins_memory.errors import GateError
from hins_memory.loop.onnx import export_onnx
from hins_memory.registry.registry import Registry
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.serving.clients import Measured, measure
from parts.serving.flips import References, run_load
from parts.serving.project import add_shifted_tower, write_sample_traffic
from parts.serving.servers import Server, free_port, hins_command, infinity_command, started, unbatched_command
from parts.swapping.load import memory_text, percentile

_CLIENTS, _QUICK_CLIENTS = (1, 8, 64), (1, 8)
_SECONDS, _QUICK_SECONDS = 6.0, 0.5
_ROUNDS, _CALLS, _QUICK_CALLS = 3, 300, 20
# Texts that an embedder takes in a row.
_BLOCK = 50
# More than the vectors that an encoder keeps, so that many texts are embedded anew.
_TEXTS, _QUICK_TEXTS = 6000, 50
_FLIP_SECONDS, _QUICK_FLIP_SECONDS = 20.0, 1.5
_SEEDS = (1, 2)

_Embed = Callable[[str], object]


def _texts(seed: int) -> Callable[[], str]:
    numbers = itertools.count(1_000_000 * (seed + 1))
    return lambda: f"{memory_text(number := next(numbers))} Is it {number}?"


def _prepared(settings: Settings) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """Export the stock encoder; return what the gate measured of 8 bits, and the folders of the exports."""
    stage("exports")
    encoder = Encoder.load("stock")
    found = write_sample_traffic(settings, encoder)
    folders = {"fp32": export_onnx(settings, "stock").path}
    try:
        made = export_onnx(settings, "stock", int8=True)
    except GateError as error:
        return [{"part": "int8", "refused": str(error), "answered": found}], folders
    assert made.record.fidelity is not None
    return [{"part": "int8", "answered": found, **made.record.to_dict()["fidelity"]}], {**folders, "int8": made.path}


def _embedders(folders: dict[str, Path]) -> dict[str, _Embed]:
    from mem0.configs.embeddings.base import BaseEmbedderConfig
    from mem0.embeddings.huggingface import HuggingFaceEmbedding

    torch_encoder = Encoder.load("stock")
    mem0 = HuggingFaceEmbedding(BaseEmbedderConfig(model=resolve_model("stock"), embedding_dims=384))
    found: dict[str, _Embed] = {
        "mem0": lambda text: mem0.embed(text, "search"),
        "torch": lambda text: torch_encoder.encode([text], role="query"),
    }
    for precision, folder in folders.items():
        encoder = OnnxEncoder.load(folder)
        found[f"onnx {precision}"] = lambda text, encoder=encoder: encoder.encode([text], role="query")  # type: ignore[misc]
    return found


def _in_process(embedders: dict[str, _Embed], calls: int, text: Callable[[], str]) -> list[dict[str, Any]]:
    """Return the latency of one text at a time; the embedders take turns, `_BLOCK` texts each."""
    stage(f"{calls} texts in the process")
    wall: dict[str, list[float]] = {name: [] for name in embedders}
    cpu: dict[str, list[float]] = {name: [] for name in embedders}
    for _ in range(0, calls, _BLOCK):
        for name, embed in embedders.items():
            # The first ones make room in memory and choose how to compute, and torch's threads still spin for the last
            # one's work: a process has one of these embedders, not all.
            for _ in range(5):
                embed(text())
            for _ in range(min(_BLOCK, calls - len(wall[name]))):
                asked = text()
                own, begun = time.process_time(), time.perf_counter()
                embed(asked)
                ended, spent = time.perf_counter() - begun, time.process_time() - own
                wall[name].append(ended)
                cpu[name].append(spent)
    return [
        {
            "part": "process",
            "embedder": name,
            "p50_ms": percentile(wall[name], 50),
            "p99_ms": percentile(wall[name], 99),
            "cpu_ms": percentile(cpu[name], 50),
        }
        for name in embedders
    ]


def _servers(stack: ExitStack, settings: Settings, fp32: Settings, infinity: Path | None, int8: bool) -> list[Server]:
    """Start every server; it stays until the stack is left."""
    folder, model = Path(resolve_model("stock")), f"hins-{Encoder.load('stock').version}"
    commands: list[tuple[str, Callable[[int], list[str]], str]] = [
        ("unbatched", lambda port: unbatched_command(folder, port), "model"),
        ("hins torch", lambda port: hins_command(settings, "torch", port), model),
        ("hins onnx fp32", lambda port: hins_command(fp32, "onnx", port), model),
    ]
    if int8:
        commands.append(("hins onnx int8", lambda port: hins_command(settings, "onnx", port), f"{model}:query"))
    if infinity is not None:
        commands.append(("infinity", lambda port: infinity_command(infinity, folder, port), "model"))
    found = []
    for name, command, id in commands:
        stage(f"start {name}")
        port = free_port()
        found.append(stack.enter_context(started(name, command(port), port, id)))
    return found


def _over_http(
    servers: Sequence[Server], arguments: argparse.Namespace, text: Callable[[], str]
) -> Iterator[dict[str, Any]]:
    quick = arguments.quick
    seconds, draw = (_QUICK_SECONDS if quick else arguments.seconds), random.Random(arguments.seed)
    for server in servers:
        measure(server.port, server.model, 2, min(seconds, 2.0), text)
    for clients in _QUICK_CLIENTS if quick else _CLIENTS:
        stage(f"{clients} clients")
        rounds: dict[str, list[tuple[Measured, float]]] = {server.name: [] for server in servers}
        for _ in range(1 if quick else arguments.rounds):
            for server in draw.sample(servers, len(servers)):
                before = server.cpu_seconds()
                found = measure(server.port, server.model, clients, seconds, text)
                rounds[server.name].append((found, server.cpu_seconds() - before))
        for server in servers:
            yield {"part": "http", "server": server.name, "clients": clients, **_summary(rounds[server.name])}


def _summary(rounds: Sequence[tuple[Measured, float]]) -> dict[str, Any]:
    return {
        "requests": sum(len(one.seconds) for one, _ in rounds),
        "failed": sum(one.failed for one, _ in rounds),
        "per_second": float(np.median([one.per_second for one, _ in rounds])),
        "p50_ms": float(np.median([percentile(one.seconds, 50) for one, _ in rounds])),
        "p99_ms": float(np.median([percentile(one.seconds, 99) for one, _ in rounds])),
        "cpu_ms": float(np.median([1000 * cpu / max(1, len(one.seconds)) for one, cpu in rounds])),
    }


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the ratios: over torch in the process, and over the server without batches."""
    alone = {row["embedder"]: row for row in rows if row["part"] == "process"}
    figures: dict[str, float] = {}
    for name, row in alone.items():
        key = name.replace(" ", "_")
        figures[f"p50_ms_{key}"] = row["p50_ms"]
        if name.startswith("onnx"):
            figures[f"p50_ratio_{key}_over_torch"] = alone["torch"]["p50_ms"] / row["p50_ms"]
            figures[f"p50_ratio_{key}_over_mem0"] = alone["mem0"]["p50_ms"] / row["p50_ms"]
    served = {(row["server"], row["clients"]): row for row in rows if row["part"] == "http"}
    for (name, clients), row in served.items():
        key = f"{name.replace(' ', '_')}_{clients}"
        figures[f"per_second_{key}"] = row["per_second"]
        figures[f"failed_{key}"] = row["failed"]
        for peer in ("unbatched", "infinity"):
            if name.startswith("hins") and (peer, clients) in served:
                figures[f"ratio_{key}_over_{peer}"] = row["per_second"] / served[peer, clients]["per_second"]
    return figures


def _speed(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    settings = Settings(home=folder, project="serving")
    text = _texts(arguments.seed)
    rows, folders = _prepared(settings)
    # The same export without the one in 8 bits, which would be preferred.
    fp32 = Settings(home=folder, project="fp32")
    export_onnx(fp32, "stock")
    rows += _in_process(_embedders(folders), _QUICK_CALLS if arguments.quick else arguments.calls, text)
    with ExitStack() as stack:
        servers = _servers(stack, settings, fp32, arguments.infinity, "int8" in folders)
        rows += _over_http(servers, arguments, text)
    names = ("embedder", "p50_ms", "p99_ms", "cpu_ms")
    alone = [[row[name] for name in names] for row in rows if row["part"] == "process"]
    show_table("one text at a time, in the process", ("", "p50 ms", "p99 ms", "ms of processor"), alone)
    measured = ("server", "clients", "per_second", "p50_ms", "p99_ms", "cpu_ms", "failed")
    served = [[row[name] for name in measured] for row in rows if row["part"] == "http"]
    columns = ("server", "clients", "requests/s", "p50 ms", "p99 ms", "ms of processor", "failed")
    show_table("over HTTP", columns, served)
    return _figures(rows), rows


def _flips(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    settings, quick = Settings(home=folder, project="flips"), arguments.quick
    registry, documents = Registry(settings), Encoder.load("stock")
    stage("two towers, and what each makes of the texts")
    versions = {add_shifted_tower(registry, documents, folder / f"tower{seed}", seed).id: seed for seed in _SEEDS}
    references = References.of(documents, _QUICK_TEXTS if quick else _TEXTS, versions)
    port = free_port()
    timing = arguments.flips, _QUICK_FLIP_SECONDS if quick else _FLIP_SECONDS
    with started("hins serve", hins_command(settings, "auto", port), port, documents.version) as server:
        stage(f"{timing[0]:.0f} seconds, another version every {timing[1]:.0f}")
        found = run_load(server, registry, references, 4 if quick else 16, timing, arguments.seed)
    figures = {
        "requests": found.requests,
        "failed": found.failed,
        "wrong_version": found.wrong,
        "late": found.late,
        "flips": found.flips,
        "p50_ms": percentile(found.seconds, 50),
        "p99_ms": percentile(found.seconds, 99),
        "rss_start_mib": found.rss[0],
        "rss_end_mib": found.rss[-1],
        "rss_most_mib": max(found.rss),
        "rss_growth_mib": found.growth_mib(),
    }
    return figures, [{"part": "rss", "second": second, "mib": mib} for second, mib in enumerate(found.rss)]


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="hins-serving-") as folder:
        figures, rows = (_flips if arguments.flips else _speed)(arguments, Path(folder))
    show_table("figures", ("figure", "value"), [(name, f"{value:.2f}") for name, value in figures.items()])
    names = ("seed", "quick", "seconds", "rounds", "calls", "flips")
    chosen = {name: getattr(arguments, name) for name in names}
    write_result(arguments.json, figures, rows, chosen)


def main() -> None:
    """Parse the arguments and run."""
    parser = base_parser(str(__doc__).splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=float, default=_SECONDS, help=f"for each server and round (default {_SECONDS})")
    add("--rounds", type=int, default=_ROUNDS, help=f"turns of each server (default {_ROUNDS})")
    add("--calls", type=int, default=_CALLS, help=f"texts in the process (default {_CALLS})")
    add("--infinity", type=Path, metavar="PROGRAM", help="infinity_emb of an environment of its own")
    add("--flips", type=float, nargs="?", const=600.0, metavar="SECONDS", help="versions change under load instead")
    _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
