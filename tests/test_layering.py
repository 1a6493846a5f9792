"""The layering, read from the imports of every source file; docs/decisions/0001-layout-and-layering.md says why."""

import ast
import sys
from collections.abc import Container, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "hins_memory"

# Every room of the core, and what it may import beside WORDS. The stages (mining, training, synthesis, swapping) are
# not in one another's rows: the loop is the only room that joins them.
WORDS = {"config", "errors", "types"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "config": set(),
    "client": set(),
    "common": set(),
    "plugins": set(),
    "data": set(),
    "database": {"common"},
    "llm": {"common"},
    "encoders": {"common", "data"},
    "log": {"common", "database", "plugins"},
    "evaluation": {"common", "data", "encoders"},
    "registry": {"common", "database", "encoders"},
    # a Ray cluster's tasks and actors
    "cluster": {"database", "encoders", "registry"},
    # the stages
    "mining": {"common", "data", "encoders"},
    "training": {"common", "data", "encoders", "evaluation"},
    "synthesis": {"common", "data", "encoders", "llm"},
    "swapping": {"common", "encoders", "plugins", "registry"},
    # for adapters
    "sdk": {"common", "encoders", "log", "plugins", "registry", "swapping"},
    # the contract suite, for the tests of adapters
    "testing": {
        *("common", "data", "database", "encoders", "log", "plugins", "registry", "sdk", "swapping"),
    },
    # what joins the stages
    "loop": {
        *("cluster", "data", "database", "encoders", "evaluation", "log", "mining", "plugins", "registry", "swapping"),
        "training",
    },
    # the project over HTTP: it reads everything, and swaps and rolls back on a person's word
    "server": {
        *("common", "data", "database", "encoders", "evaluation", "log", "loop", "plugins", "registry", "swapping"),
        "",
    },
    # the proxy before an MCP server
    "mcp": {"database", "log"},
    "cli": {
        *("common", "data", "database", "demo", "encoders", "evaluation", "llm", "log", "loop", "mcp", "mining"),
        *("plugins", "registry", "server", "swapping", "synthesis", "training", ""),
    },
    "demo": {"data", "evaluation", "loop", "mining", "training", ""},
    # the public names, lazily
    "_old_names": set(),
    "__main__": {"cli"},
    "__init__": {"_old_names", "encoders", "loop", "plugins"},
}
STAGES = {"mining", "training", "synthesis", "swapping"}
# What the adapters may import of the core.
FOR_ADAPTERS = WORDS | {"common", "encoders", "log", "plugins", "registry", "sdk"}
FRAMEWORKS = {
    *(
        "hins_adapter_adk",
        "hins_adapter_agent_framework",
        "hins_adapter_crewai",
        "hins_adapter_graphiti",
        "hins_adapter_hindsight",
        "hins_adapter_langgraph",
        "hins_adapter_llamaindex",
        "hins_adapter_mem0",
        "hins_adapter_memoryos",
    ),
    *("agent_framework", "crewai", "google", "graphiti_core", "kuzu", "langchain_core", "langgraph", "llama_index"),
    *("mem0", "memoryos", "qdrant_client"),
}
# The folders of benchmarks/parts, from the ground up.
BENCHMARK_FOLDERS = [
    *("common", "datasets", "agents", "qa", "evaluation", "mining", "locomo", "personamem", "training", "swapping"),
    "serving",
]
# Modules of training that nothing imports before a training begins.
LATE = {
    *("callbacks", "distillation", "gathering", "gradient_cache", "heldout_evaluator", "loss", "stored_loss"),
    "tiered_trainer",
}
HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "sklearn",
    "datasets",
    "peft",
    "pandas",
    "faiss",
    "mem0",
    "openai",
    "mteb",
    "ray",
}
# Imported by the room server alone, which the command line imports when it serves.
SERVING = {"fastapi", "prometheus_client", "starlette", "uvicorn"}


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def part_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


@cache
def imports(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Return every import in a file: each test asks the same files."""
    return tuple(node for node in ast.walk(parsed(path)) if isinstance(node, (ast.Import, ast.ImportFrom)))


def imported(nodes: Iterable[ast.Import | ast.ImportFrom]) -> Iterator[str]:
    """Yield every imported module; of ``from hins_memory import name`` the submodule, if it is one."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, "relative imports would hide a layer"
            if node.module == "hins_memory":
                known = ALLOWED.keys()
                yield from (f"hins_memory.{a.name}" if a.name in known else "hins_memory" for a in node.names)
            elif node.module:
                yield node.module


def at_import(tree: ast.Module) -> Iterator[str]:
    """Yield what is imported as soon as the module is: not in functions, not for type checkers only."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported([node])
        waiting.extend(ast.iter_child_nodes(node))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_core_modules_import_only_what_they_may(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"hins_memory/{part} is new: say in ALLOWED what it may import"
    own = {
        name.removeprefix("hins_memory").lstrip(".").split(".")[0] for name in imported(imports(path)) if is_core(name)
    }
    extra = own - ALLOWED[part] - WORDS - {part}
    assert not extra, f"{path.name} imports {sorted(extra)}, which hins_memory.{part} may not"


def is_core(name: str) -> bool:
    return name.split(".")[0] == "hins_memory"


@pytest.mark.parametrize(
    "path",
    [path for path in sources(CORE) if part_of(path) in STAGES],
    ids=lambda path: str(path.relative_to(CORE)),
)
def test_stages_do_not_import_one_another(path: Path) -> None:
    rooms = {name.split(".")[1] for name in imported(imports(path)) if is_core(name) and "." in name}
    assert not rooms & (STAGES - {part_of(path)})


def module_of(path: Path) -> str:
    root = ROOT if path.is_relative_to(CORE) else ROOT / "adapters"
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def test_no_files_import_one_another_in_a_circle() -> None:
    files = {module_of(path): path for path in (*sources(CORE), *sources(ROOT / "adapters"))}
    edges = {name: set(files_imported(path, files)) - {name} for name, path in files.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


def files_imported(path: Path, files: Container[str]) -> Iterator[str]:
    """Yield the modules among `files` that a file imports anywhere in it."""
    for node in imports(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif node.module:
            names = ((f"{node.module}.{alias.name}", node.module) for alias in node.names)
            yield from (name for both in names if (name := next((one for one in both if one in files), "")))


@pytest.mark.parametrize("room", sorted({path.parent for path in sources(CORE)} - {CORE}), ids=lambda path: path.name)
def test_every_room_says_what_it_is_for(room: Path) -> None:
    if "migrations" not in room.parts:
        assert ast.get_docstring(parsed(room / "__init__.py"))


def test_the_allowed_edges_have_no_cycle_and_no_dead_entry() -> None:
    parts = {part_of(path) for path in sources(CORE)}
    assert ALLOWED.keys() <= parts, f"gone: {sorted(ALLOWED.keys() - parts)}"

    def reach(part: str, path: tuple[str, ...]) -> None:
        assert part not in path, f"a cycle: {' -> '.join((*path, part))}"
        for other in ALLOWED.get(part, ()):
            reach(other, (*path, part))

    for part in ALLOWED:
        reach(part, ())


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_imports_no_agent_framework(path: Path) -> None:
    found = {name.split(".")[0] for name in imported(imports(path))} & FRAMEWORKS
    if path == CORE / "__init__.py":
        # For type checkers only; at run time the names are imported when they are used.
        assert not FRAMEWORKS & {name.split(".")[0] for name in at_import(parsed(path))}
        found -= {"hins_adapter_mem0"}
    assert not found, f"{path.name} imports {sorted(found)}"


@pytest.mark.parametrize("path", sources(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_heavy_packages_are_imported_in_functions(path: Path) -> None:
    # Modules that nothing imports before they are needed may import them at their top.
    if path.is_relative_to(CORE / "training") and path.stem in LATE:
        return
    heavy = HEAVY if part_of(path) == "server" else HEAVY | SERVING
    found = {name.split(".")[0] for name in at_import(parsed(path))} & heavy
    assert not found, f"{path.name} imports {sorted(found)} as soon as it is imported"


def test_types_imports_the_standard_library_only() -> None:
    found = {name.split(".")[0] for name in imported(imports(CORE / "types.py"))}
    assert found <= sys.stdlib_module_names


@pytest.mark.parametrize("path", [*sources(ROOT / "benchmarks"), *sources(ROOT / "tools")], ids=lambda path: path.name)
def test_benchmarks_and_tools_use_the_public_packages_only(path: Path) -> None:
    names = set(imported(imports(path)))
    ours = {name.split(".")[0] for name in names if name.startswith("hins_")}
    assert ours <= {"hins_memory"} | FRAMEWORKS, f"{path.name} imports {sorted(ours)}"
    private = {name for name in names - {"__future__"} if any(part.startswith("_") for part in name.split("."))}
    assert not private, f"{path.name} imports {sorted(private)}"


@pytest.mark.parametrize("path", sources(ROOT / "benchmarks" / "parts"), ids=lambda path: path.name)
def test_what_benchmarks_share_imports_only_folders_above_it(path: Path) -> None:
    folder = path.relative_to(ROOT / "benchmarks" / "parts").parts[0]
    if folder == "__init__.py":
        return
    assert folder in BENCHMARK_FOLDERS, f"benchmarks/parts/{folder} is new: say in BENCHMARK_FOLDERS where it stands"
    above = {*BENCHMARK_FOLDERS[: BENCHMARK_FOLDERS.index(folder) + 1]}
    names = [name.split(".") for name in imported(imports(path))]
    assert {name[1] for name in names if name[0] == "parts"} <= above, path
    commands = {one.stem for one in (ROOT / "benchmarks").glob("*.py")}
    assert not {name[0] for name in names} & commands, f"{path.name} imports a command"


@pytest.mark.parametrize("adapter", sorted(one.name for one in (ROOT / "adapters").iterdir() if one.is_dir()))
def test_adapters_do_not_import_one_another(adapter: str) -> None:
    for path in sources(ROOT / "adapters" / adapter):
        names = {name.split(".")[0] for name in imported(imports(path))}
        assert not {name for name in names if name.startswith("hins_adapter_")} - {adapter}, path.name
        rooms = {[*name.split("."), ""][1] for name in names_of_core(path)}
        assert rooms <= FOR_ADAPTERS, f"{path.name} imports {sorted(rooms - FOR_ADAPTERS)} of the core"


def names_of_core(path: Path) -> list[str]:
    return [name for name in imported(imports(path)) if is_core(name)]
