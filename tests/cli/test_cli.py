"""The command line: help, documentation, JSON, exit statuses, the log's commands, and the loop on a real Mem0."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import typer
from child_process import run_python
from pipeline_world import play, sample
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.cli.doctor import _hybrid_search
from hins_memory.cli.terminal import set_up_logging
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.copies import known_copies
from hins_memory.log.writer import LogWriter
from hins_memory.mining import read_examples
from hins_memory.registry.registry import Registry
from hins_memory.types import Answer, Memory, RankedMemory, Retrieval, Scope, Turn

ROOT = Path(__file__).resolve().parents[2]
EXIT_STATUSES = {
    1: "something else",
    2: "setting",
    3: "too little",
    4: "gate",
    7: "training",
    8: "rollback",
    9: "agent",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its whole name, e.g. ``log show``."""

    def walk(group: click.Command, names: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        for name, command in getattr(group, "commands", {}).items():
            if hasattr(command, "commands"):
                yield from walk(command, (*names, name))
            else:
                yield " ".join((*names, name)), command

    yield from walk(typer.main.get_command(app), ())


COMMANDS = dict(commands())


class Hins:
    """Runs commands in this process on one project."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, *arguments: object, code: int = 0, answer: str | None = None) -> tuple[str, str]:
        options = ["--home", str(self.settings.home), "--project", self.settings.project]
        result = CliRunner().invoke(app, [*options, *map(str, arguments)], input=answer, env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout, result.stderr

    def json(self, *arguments: object, code: int = 0) -> dict:
        return json.loads(self(*arguments, "--json", code=code)[0])


@pytest.fixture
def hins(settings: Settings) -> Hins:
    return Hins(settings)


@pytest.fixture
def recorded(settings: Settings) -> Settings:
    """A log with a little of two users."""
    events = []
    for user, text in (("ann", "我喜欢大提琴 🎻 [bold]not markup[/bold]"), ("bob", "Bob sails.")):
        scope = Scope(user=user)
        turn = Turn(scope, "c", user.title(), text)
        found = (RankedMemory(f"m-{user}", text, 0.5),)
        retrieval = Retrieval(scope, f"What does {user} like?", found)
        events += [turn, Memory(f"m-{user}", scope, "c", text, user.title(), (turn.id,)), retrieval]
        events.append(Answer(retrieval.id, "That."))
    LogWriter(open_database(settings.database_url)).write(events)
    return settings


def test_help_lists_every_command_and_the_exit_statuses(hins: Hins) -> None:
    said = " ".join(hins("--help")[0].split())
    for name in COMMANDS:
        assert name.split()[0] in said
    assert "4 the gate refused" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_its_options(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert f"`hins {name}" in readme
    assert f"\n## hins {name}\n" in pages
    section = pages.split(f"\n## hins {name}\n")[1].split("\n## ")[0]
    options = {option for one in COMMANDS[name].params for option in one.opts if option.startswith("--")}
    for option in options - {"--json"}:
        assert option in section, f"docs/reference/cli.md does not tell of {option}"


def test_every_documented_command_exists() -> None:
    pages = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    told = {line.removeprefix("## hins ") for line in pages.splitlines() if line.startswith("## hins ")}
    assert told == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_and_has_a_help_text(name: str) -> None:
    assert "--json" in {option for one in COMMANDS[name].params for option in one.opts}
    assert COMMANDS[name].help


def test_exit_statuses_are_documented() -> None:
    page = "docs/reference/cli.md"
    text = " ".join((ROOT / page).read_text(encoding="utf-8").lower().replace("|", " ").split())
    for code, meaning in EXIT_STATUSES.items():
        assert re.search(rf"\b{code} [^;.]*{meaning}", text), f"{page} does not tell of {code}"


def test_status_of_an_empty_log_says_what_to_do(hins: Hins) -> None:
    said, _ = hins("status")
    assert "new stores begin with 'stock'" in said
    assert "attach(memory)" in said
    assert hins.json("status")["log"]["retrievals"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine", "train"])
def test_an_empty_log_gives_a_sentence_and_status_3(hins: Hins, name: str) -> None:
    said, complaint = hins(name, code=3)
    assert said == ""
    assert "0 retrievals" in complaint
    assert "At least 2" in complaint
    assert "Traceback" not in complaint
    error = hins.json(name, code=3)["error"]
    assert error["type"] == "NotEnoughDataError"
    assert error["exit_code"] == 3


def test_nothing_trained_yet(hins: Hins) -> None:
    assert "hins train" in hins("gate", code=3)[1]
    assert "v0009" in hins("gate", "v0009-12345678", code=6)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("swap", "--agent", "nope"), 2, "Known agents: "),
        (("swap", "--dry-run", "--force"), 2, "exclude"),
        (("swap", "--retire", "v0001-12345678"), 2, "no version"),
        (("run", "--mode", "magic"), 2, "not a training mode"),
        (("train", "--epochs", "0"), 2, "above 0"),
        (("mine", "--negatives", "-1"), 2, "at least 1"),
        (("rollback", "--agent-config", "/nowhere/x.json"), 2, "cannot be read"),
        (("log", "purge", "--user", "ann", "--json"), 2, "--yes"),
    ],
)
def test_wrong_arguments_are_one_sentence(hins: Hins, arguments: tuple[str, ...], code: int, words: str) -> None:
    _, complaint = hins(*arguments, code=code)
    assert words in " ".join(complaint.split())


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_an_agent_config_that_is_no_object_is_refused(hins: Hins, tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    assert "config.json" in hins("swap", "--agent-config", path, code=2)[1]


def test_a_bad_project_name_is_status_2() -> None:
    result = CliRunner().invoke(app, ["--project", "../etc", "status"])
    assert result.exit_code == 2
    assert "not a project name" in result.stderr


def test_a_log_that_is_no_database_is_status_5(hins: Hins, settings: Settings) -> None:
    settings.root.mkdir(parents=True)
    (settings.root / "log.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert "restore" in hins("status", code=5)[1].lower() or "Move the file away" in hins("status", code=5)[1]


def test_log_show(hins: Hins, recorded: Settings) -> None:
    said, _ = hins("log", "show")
    assert "我喜欢大提琴 🎻 [bold]not markup[/bold]" in said
    assert "user=bob" in said
    entries = hins.json("log", "show", "--user", "ann", "-n", 3)["entries"]
    assert len(entries) == 3
    assert {one["scope"] for one in entries} == {"user=ann"}


def test_log_export_agrees_in_all_its_forms(hins: Hins, recorded: Settings, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in hins("log", "export")[0].splitlines()]
    assert len(lines) == 8
    assert hins.json("log", "export")["events"] == lines
    path = tmp_path / "new" / "export.jsonl"
    assert hins.json("log", "export", "-o", path) == {"path": str(path), "events": 8}
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == lines
    assert path.stat().st_mode & 0o077 == 0
    assert "🎻" in path.read_text(encoding="utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["export.jsonl"]


def test_log_export_of_an_empty_log(hins: Hins) -> None:
    assert hins("log", "export")[0] == ""
    assert hins.json("log", "export") == {"events": []}


def test_log_export_to_a_folder_says_so(hins: Hins, recorded: Settings, tmp_path: Path) -> None:
    assert "cannot be written" in hins("log", "export", "-o", tmp_path, code=5)[1]


def test_log_export_writes_parquet_files(hins: Hins, recorded: Settings, tmp_path: Path) -> None:
    assert hins.json("log", "export", "--parquet", tmp_path / "export")["rows"]["turns"] == 2
    assert "exclude" in hins("log", "export", "--parquet", tmp_path / "other", "-o", tmp_path / "x", code=2)[1]
    assert "holds an export already" in hins("log", "export", "--parquet", tmp_path / "export", code=5)[1]
    assert [copy.path for copy in known_copies(recorded.root)] == [str(tmp_path / "export")]


def test_log_retain_says_what_went_and_what_would(hins: Hins, recorded: Settings) -> None:
    old = Retrieval(Scope(user="ann"), "What was it?", (), time=1.0)
    LogWriter(open_database(recorded.database_url)).write([old, Answer(old.id, "That.", 1.0)])
    assert hins.json("log", "retain", "--days", 90, "--dry-run")["removed"]["retrievals"] == 1
    assert not any(hins.json("log", "retain", "--days", 90, "--keep", "outcomes")["removed"].values())
    assert "removed from" in hins("log", "retain", "--days", 90)[0]
    assert "nothing older" in hins("log", "retain", "--days", 90)[0]
    assert hins.json("status")["log"]["retrievals"] == 2


def test_log_purge_asks_and_removes_one_person_only(hins: Hins, recorded: Settings) -> None:
    hins("log", "purge", "--user", "ann", answer="n\n", code=1)
    assert len(hins.json("log", "export")["events"]) == 8
    hins("log", "purge", "--user", "ann", answer="y\n")
    left = hins.json("log", "export")["events"]
    assert len(left) == 4
    assert "ann" not in json.dumps(left)
    assert not any(hins.json("log", "purge", "--user", "ann", "--yes")["removed"].values())


@pytest.mark.slow
def test_doctor_finds_everything(hins: Hins) -> None:
    found = hins.json("doctor")
    assert found["ok"]
    checks = {one["name"]: one for one in found["checks"]}
    assert checks.keys() >= {"python", "torch", "plugin mem0", "log", "encoder"}
    assert "bf16" in checks["torch"]["detail"]
    assert "384" in checks["encoder"]["detail"]


@pytest.mark.slow
def test_doctor_names_the_command_that_repairs_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real broken plugin: an installed distribution whose module needs something that is not there.
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hins_memory]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    program = "import sys; sys.path.insert(0, sys.argv.pop()); from hins_memory.cli import main; main()"
    done = run_python(program, "doctor", "--json", str(tmp_path))
    assert done.returncode == 1, done.stderr
    failed = [one for one in json.loads(done.stdout)["checks"] if one["ok"] is False]
    assert [one["name"] for one in failed] == ["plugin broken"]
    assert failed[0]["fix"] == "pip install a_module_that_is_missing"


@pytest.mark.slow
def test_doctor_takes_what_is_not_installed_for_optional_unless_the_project_uses_it(
    hins: Hins, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A framework that is not there: its adapter looks for the module, and a path that hides it is all that differs.
    def hidden(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "memoryos" else find_spec(name, package)

    monkeypatch.setattr("hins_memory.sdk.plugin.find_spec", hidden)
    check = next(one for one in hins.json("doctor")["checks"] if one["name"] == "plugin memoryos")
    assert (check["ok"], check["detail"]) == (None, "not installed, optional")
    assert "memoryos-pro" in check["fix"]

    Registry(settings).record_live(f"memoryos:{tmp_path}", "stock", "")
    found = json.loads(hins("doctor", "--json", code=1)[0])
    check = next(one for one in found["checks"] if one["name"] == "plugin memoryos")
    assert (check["ok"], check["detail"]) == (False, "not installed, but agents of this project use it")


def test_doctor_explains_hybrid_search_by_one_command() -> None:
    checks = list(_hybrid_search())
    if find_spec("spacy") is None:
        assert [check.ok for check in checks] == [None]
        assert "spaCy" in checks[0].detail
        assert checks[0].fix.startswith("pip install ")


@pytest.mark.slow
def test_the_reader_of_a_pipe_may_leave(recorded: Settings) -> None:
    options = f"--home {recorded.home} --project {recorded.project}"
    line = f"{sys.executable} -c 'from hins_memory.cli import main; main()' {options} log export | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_loop_on_a_real_mem0(
    hins: Hins, settings: Settings, shallow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hins_memory import Memory as Mem0Memory
    from hins_memory.registry.loader import shared_encoder

    monkeypatch.setenv("HINS_BASE", str(shallow_folder))
    # Every command embeds the same texts: while it is held, the encoder keeps their vectors.
    held = shared_encoder(shallow_folder)
    memory = Mem0Memory(embedder="hins", settings=settings)
    for conversation in sample(3):
        play(memory, conversation)
    memory.close()
    # What is learnt is not the point here.
    quick = '[train]\nmode = "lora"\nepochs = 0.2\nmin_steps = 4\nmax_tokens = 32\n'
    (settings.root / "hins.toml").write_text(quick, encoding="utf-8")

    assert hins.json("status")["log"]["conversations"] == 3
    mined = hins.json("mine")
    assert mined["examples"] >= 16
    assert sum(mined["negatives"].values()) >= mined["examples"]
    assert mined["notes"] == hins.json("mine", "--report")["notes"]
    assert "hard" in (report := hins("mine", "--report")[0])
    assert str(mined["examples"]) in report
    written = hins.json("mine", "--output", settings.root / "examples.parquet", "--memory-budget", 2**24)
    assert written["examples"] == mined["examples"] == len(list(read_examples(settings.root / "examples.parquet")))
    trained = hins.json("train", "--epochs", 1, "--seed", 1)
    assert trained["manifest"]["seed"] == 1
    version = trained["version"]
    assert Path(trained["path"]).is_dir()

    verdict = json.loads(CliRunner().invoke(app, _options(settings, "gate", "--json")).stdout)
    assert verdict["candidate"] == version
    page = settings.root / "gate.html"
    assert hins("gate", "--report", page, code=0 if verdict["passed"] else 4)[0].count(version) >= 1
    assert "Held-out traffic, by scope" in page.read_text(encoding="utf-8")
    assert hins.json("swap", "--dry-run")["to_version"] == version
    assert hins.json("status")["current"] == ""
    swapped = hins.json("swap", "--force")
    assert swapped["changed"]
    assert {one["kind"] for one in swapped["indexes"]} == {"memories", "entities"}
    assert hins.json("status")["current"] == version
    kept = hins.json("encoders", "show", version)["manifest"]
    assert [one["passed"] for one in kept["gates"]] == [verdict["passed"], verdict["passed"], None]
    assert [one["forced"] for one in kept["promotions"]] == [True]
    assert "nothing was to be done" in hins("swap", version)[0]
    assert hins.json("rollback")["previous"] == version
    assert hins.json("status")["current"] == ""
    assert hins.json("swap", "--retire")["dropped"]
    assert "no previous index" in hins("rollback", code=8)[1]

    run = CliRunner().invoke(app, _options(settings, "run", "--when", "20 answers or 7 days", "--json"))
    ran = json.loads(run.stdout)
    assert ran["schedule"]["due"]
    assert run.exit_code == (0 if ran["swapped"] else 4)
    again = hins.json("run", "--when", "20 answers or 7 days")
    assert not again["ran"]
    assert again["schedule"]["why"] == "0 of 20 new answers; 0.0 of 7 days since the last round."
    one = sample(1)[0]
    scoped = CliRunner().invoke(app, _options(settings, "run", "--owner", one.id, "--when", "1 answer", "--json"))
    assert json.loads(scoped.stdout)["schedule"]["new"]["answers"] == len(one.questions)
    assert scoped.exit_code in (0, 4), scoped.output
    del held


def _options(settings: Settings, *arguments: str) -> list[str]:
    return ["--home", str(settings.home), "--project", settings.project, *arguments]


def test_every_plugin_and_the_telemetry_are_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEM0_TELEMETRY", raising=False)
    names = ("hins_memory", "hins_adapter_mem0", "hins_adapter_memoryos")
    for verbose, level in ((True, logging.INFO), (False, logging.WARNING)):
        set_up_logging(verbose)
        assert [logging.getLogger(name).level for name in names] == [level] * 3
    assert os.environ["MEM0_TELEMETRY"] == "False"
    monkeypatch.setenv("MEM0_TELEMETRY", "True")
    set_up_logging(False)
    assert os.environ["MEM0_TELEMETRY"] == "True"


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
def test_a_first_memory_says_what_it_waits_for(settings: Settings, forked_python: str) -> None:
    options = ["--home", str(settings.home), "--project", settings.project]
    program = "from hins_memory.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "MEM0_TELEMETRY"}
    # As if it had not been imported.
    first = f"import sys; sys.modules.pop('sentence_transformers', None); {program}"
    command = [forked_python, "-c", first, *options, "-v", "swap", "--retire"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = " ".join(done.stderr.split())
    assert "Importing torch and sentence-transformers, once in a process: this takes seconds." in said
    assert "Loaded the model" in said
    # Mem0's own remarks and its telemetry's errors are not the user's business here.
    command = [sys.executable, "-c", program, *options, "swap", "--retire"]
    quiet = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert quiet.stderr == ""
    assert "no old index" in quiet.stdout
