"""What is packaged and promised: metadata, entry points, shipped files, and targets that exist."""

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pyproject() -> dict:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_has_a_changelog_and_is_the_one_to_cite() -> None:
    version = pyproject()["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_licence_is_the_full_apache_2() -> None:
    # The digest of https://www.apache.org/licenses/LICENSE-2.0.txt
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert pyproject()["project"]["license"] == "Apache-2.0"


def test_entry_points_can_be_loaded() -> None:
    for group in ("hins_memory", "console_scripts"):
        found = [
            one for one in importlib.metadata.entry_points(group=group) if one.dist and one.dist.name == "hins-memory"
        ]
        assert found
        for one in found:
            assert one.load() is not None


def test_torch_is_pinned_within_the_declared_range() -> None:
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert pins.keys() == {"torch"}
    declared = next(one for one in pyproject()["project"]["dependencies"] if one.startswith("torch"))
    least = re.fullmatch(r"torch>=([\d.]+)", declared)
    assert least
    assert tuple(map(int, pins["torch"].split("."))) >= tuple(map(int, least.group(1).split(".")))


@pytest.mark.parametrize("target", ["demo", "test", "check", "coverage", "lint", "docs", "plots", "bench"])
def test_make_knows_the_target(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ".venv/bin/" in done.stdout


def test_make_installs_torch_first_and_pinned() -> None:
    done = subprocess.run(["make", "-n", "-B", "setup"], cwd=ROOT, capture_output=True, text=True, check=True)
    installs = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert installs[0].endswith(" torch")
    assert all("-c constraints.txt" in line for line in installs)
    assert "--no-deps memoryos-pro" in installs[-1]


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash")
    assert "set -euo pipefail" in text
    assert "make test" in text


@pytest.mark.slow
def test_the_wheel_holds_every_package_and_its_data(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building offline needs hatchling; CI's own build has it")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    sources = [path.relative_to(ROOT) for path in (ROOT / "hins_memory").rglob("*") if path.is_file()]
    sources += [path.relative_to(ROOT / "adapters") for path in (ROOT / "adapters" / "hins_adapter_mem0").rglob("*.py")]
    wanted = {path.as_posix() for path in sources if "__pycache__" not in path.parts}
    assert wanted <= set(names)
    assert "hins_memory/py.typed" in names
