"""Say which frameworks have left the versions that their adapters are tested with.

    python tools/upstream.py [PYPROJECT]

Compares the ranges of the adapters' extras in pyproject.toml, and of what no extra installs, with the newest versions
that pip and npm find. Ends with 1 where one is outside of its range, and says what to run; with 2 where an index gives
no answer.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["ADAPTERS", "APART", "check", "main", "newest", "parse_newest", "ranges"]

_PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

#: The tests of each adapter, by the extra that installs its framework.
ADAPTERS = {
    "adk": "tests/adapters/adk",
    "agent-framework": "tests/adapters/agent_framework",
    "crewai": "tests/adapters/crewai",
    "graphiti": "tests/adapters/graphiti",
    "hindsight": "tests/adapters/hindsight",
    "langgraph": "tests/adapters/langgraph",
    "llamaindex": "tests/adapters/llamaindex",
    "mem0": "tests/adapters/mem0 tests/stores",
}

#: What no extra installs: the versions that were tried, and the tests. A name with @ is npm's.
APART = {
    "memoryos-pro": (">=0.1.0,<0.2", "tests/adapters/memoryos"),
    "basic-memory": (">=0.24.1,<0.25", "tests/mcp"),
    "mcp-memory-service": (">=12.4.0,<13", "tests/mcp"),
    "@modelcontextprotocol/server-memory": (">=2026.8.31,<2027", "tests/mcp"),
}


def ranges(pyproject: Mapping[str, Any]) -> dict[str, tuple[SpecifierSet, str]]:
    """Return each framework's versions and the tests of its adapter, by the framework's name.

    Args:
        pyproject: the contents of pyproject.toml.

    Raises:
        KeyError: an adapter has no extra.
    """
    extras = pyproject["project"]["optional-dependencies"]
    found = {name: (SpecifierSet(versions), tests) for name, (versions, tests) in APART.items()}
    for extra, tests in ADAPTERS.items():
        for requirement in map(Requirement, extras[extra]):
            before = found.get(requirement.name)
            found[requirement.name] = (requirement.specifier, tests if before is None else f"{before[1]} {tests}")
    return found


def parse_newest(output: str) -> str:
    """Return the newest version in what ``pip index versions NAME`` prints, ``NAME (1.2.3)`` in its first line.

    Raises:
        ValueError: there is none.
    """
    found = re.search(r"^\S+ \(([^)\s]+)\)$", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"no version in what pip prints: {output[:200]!r}")
    return found[1]


def newest(name: str) -> str:
    """Return the newest version of a package that pip, or npm for a name with @, finds for any Python; no pre-release.

    Raises:
        OSError: pip or npm finds none.
    """
    if name.startswith("@"):
        return _printed(["npm", "view", name, "version"], name).strip()
    command = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check"]
    # What runs apart may need another Python than this one.
    return parse_newest(_printed([*command, "--ignore-requires-python", name], name))


def _printed(command: Sequence[str], name: str) -> str:
    """Return what a command prints; raise an OSError if it finds no version of a package."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"No version of {name} is found: {done.stderr.strip()[-300:]}")
    return done.stdout


def check(pyproject: Mapping[str, Any], ask: Callable[[str], str] = newest) -> list[str]:
    """Return a line for every framework whose newest version is outside of its range.

    Args:
        pyproject: the contents of pyproject.toml.
        ask: returns the newest version of a package.
    """
    return [
        f"{name} {version} is outside of the range {versions}. Try it: "
        f"{_install(name, version)} && .venv/bin/pytest tests/adapters/contract {tests}"
        for name, (versions, tests) in ranges(pyproject).items()
        if not versions.contains(version := ask(name))
    ]


def _install(name: str, version: str) -> str:
    return f"npm install {name}@{version}" if name.startswith("@") else f".venv/bin/pip install {name}=={version}"


def main(arguments: Sequence[str]) -> int:
    """Print what has moved; return the command's exit code."""
    path = Path(arguments[0]) if arguments else _PYPROJECT
    pyproject = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        moved = check(pyproject)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for line in moved:
        print(line)
    if moved:
        print("Where the tests pass, widen the range, and note the version in docs/adapters.md.")
    else:
        print(f"{len(ranges(pyproject))} packages are in the ranges that the adapters are tested with.")
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
