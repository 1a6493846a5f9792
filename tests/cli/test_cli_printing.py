"""No screen of the command line lets a user's text act on the terminal, or end a command."""

import ast
import contextlib
import io
import json
import logging
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nasty_texts import EVERYTHING, arguments, harmful, texts

from hins_memory.cli import main
from hins_memory.cli.screen import Bars, Result, command, note, table
from hins_memory.cli.synthesize import _parts as synthesis_parts
from hins_memory.cli.tables import mine_parts, swap_parts
from hins_memory.cli.terminal import guard_streams, set_up_logging
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.database.tables import turns
from hins_memory.log.writer import LogWriter
from hins_memory.mining import render
from hins_memory.types import Answer, Feedback, Memory, RankedMemory, Retrieval, Scope, Turn

CLI = Path(__file__).resolve().parents[2] / "hins_memory"
SLOW = hypothesis_settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Stream(io.TextIOWrapper):
    """A stream that may be a terminal."""

    def __init__(self, tty, errors="strict"):
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)
        self._tty = tty

    def isatty(self):
        return self._tty

    @property
    def text(self):
        return self.buffer.getvalue().decode("utf-8")


@contextlib.contextmanager
def streams(tty=False):
    before, logs = (sys.stdout, sys.stderr), logging.getLogger().handlers[:]
    sys.stdout, sys.stderr = out, err = Stream(tty), Stream(tty, "backslashreplace")
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = before
        logging.getLogger().handlers[:] = logs


def hins(*arguments_, tty=False):
    """Run the command line as a process would; return its status and what it wrote."""
    argv = sys.argv
    sys.argv = ["hins", *map(str, arguments_)]
    try:
        with streams(tty) as (out, err), pytest.raises(SystemExit) as left:
            main()
        code = left.value.code or 0
    except pytest.fail.Exception:
        # A command that worked need not exit by an exception.
        code = 0
    finally:
        sys.argv = argv
    return code, out.text, err.text


def on(settings):
    return ("--home", settings.home, "--project", settings.project)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Settings(home=tmp_path_factory.mktemp("printing"), project="test")


def record(settings, text, time):
    scope = Scope(user=text[:50] or "x", agent=text[-50:])
    turn = Turn(scope, text, text, text, time)
    found = Retrieval(scope, text, (RankedMemory("m", text, 0.5),), text, time)
    memory = Memory("m", scope, text, text, text, (turn.id,), text, time)
    events = [turn, memory, found, Answer(found.id, text, time), Feedback("m", "POSITIVE", found.id)]
    LogWriter(open_database(settings.database_url)).write(events)


@SLOW
@given(texts, st.floats(allow_nan=False, allow_infinity=False), st.booleans())
@pytest.mark.slow
def test_what_the_log_holds(project, text, time, tty):
    record(project, text, time)
    for arguments_ in (("log", "show", "-n", 10), ("log", "export"), ("status",), ("log", "show", "--user", "x")):
        for option in ((), ("--json",)):
            code, out, err = hins(*on(project), *arguments_, *option, tty=tty)
            assert code == 0
            assert not harmful(out, drawn=tty)
            assert not harmful(err, drawn=tty)
            if option:
                json.loads(out, parse_constant=pytest.fail)


@pytest.mark.parametrize("time", [1e300, -1e300, 253402300800.0, -62135596801.0, float("inf"), float("-inf")])
def test_times_that_a_database_can_hold(project, time):
    record(project, "when?", 1.0)
    with open_database(project.database_url).begin() as connection:
        connection.execute(turns.update().values(time=time))
    assert "when?" in hins(*on(project), "log", "show", "-n", 1000)[1]
    for arguments_ in (("log", "show", "--json"), ("log", "export"), ("log", "export", "--json")):
        code, out, _ = hins(*on(project), *arguments_)
        assert code == 0
        for part in out.splitlines() if "--json" not in arguments_ else [out]:
            json.loads(part, parse_constant=pytest.fail)
    assert hins(*on(project), "log", "export", "-o", project.home / "times.jsonl")[0] == 0
    for part in (project.home / "times.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        json.loads(part, parse_constant=pytest.fail)


@SLOW
@given(arguments.filter(lambda text: "/" not in text and len(text.encode()) < 200), st.booleans())
@pytest.mark.slow
def test_what_is_said_of_a_wrong_argument(project, tmp_path, text, tty):
    for arguments_ in (
        ("encoders", "show", text),
        ("encoders", "diff", text, text),
        ("encoders", "export", text, "x.zip"),
        ("encoders", "import", tmp_path / f"{text}.zip"),
        ("swap", "--agent", f"x{text}"),
        ("swap", "--agent-config", tmp_path / f"{text}.json"),
        ("log", "show", "-n", f"x{text}"),
        ("log", "show", f"--x{text}"),
        ("log", text),
        ("run", "--when", f"x{text}"),
        ("train", "--mode", f"x{text}"),
        ("synthesize", "--llm", f"x{text}"),
        ("synthesize", "--exclude", tmp_path / f"x{text}"),
    ):
        code, out, err = hins(*on(project), "-v", *arguments_, tty=tty)
        assert code, arguments_
        assert out + err or text == "", arguments_
        assert "Traceback" not in err, arguments_
        assert not harmful(out + err, drawn=tty)


@SLOW
@given(arguments.filter(lambda text: "/" not in text and 0 < len(text.encode()) < 200 and text.strip(". ")))
@pytest.mark.slow
def test_where_a_folder_has_an_evil_name(tmp_path, text):
    home = tmp_path / text
    assert hins("--home", home, "log", "export", "--output", home / "out.jsonl")[0] == 0
    for arguments_ in (("status",), ("encoders", "list"), ("encoders", "show", "v1"), ("log", "export", "-o", home)):
        _, out, err = hins("--home", home, *arguments_)
        assert "Traceback" not in err
        assert not harmful(out + err)
    _, out, err = hins("--home", home, "--project", text, "status")
    assert not harmful(out + err)
    assert "Traceback" not in err


def nasty_of(kind, text):
    """Make a report of a dataclass with a text wherever one may stand."""
    import typing

    def of(hint):
        origin, inside = typing.get_origin(hint), typing.get_args(hint)
        if hint is str or (inside and str in inside and origin not in (dict, list, tuple, typing.Literal)):
            return text
        if origin is typing.Literal:
            return inside[0]
        if origin in (list, tuple):
            return origin([of(inside[0])])
        if origin is dict or hint is dict:
            return {text: of(inside[1]) if inside else 1}
        if is_dataclass(hint):
            return nasty_of(hint, text)
        if inside:
            return of(next(one for one in inside if one is not type(None)))
        if hint is float:
            return 1.0  # a rate of 0 is refused before it is shown
        return hint(text) if hint is Path else hint() if isinstance(hint, type) else text

    hints = typing.get_type_hints(kind)
    return kind(**{one.name: of(hints[one.name]) for one in fields(kind) if one.init})


@given(texts, st.booleans())
@hypothesis_settings(deadline=None)
@pytest.mark.slow
def test_what_reports_say(text, tty):
    from collections import Counter

    from hins_memory.mining import MineReport
    from hins_memory.mining.report import TierSample
    from hins_memory.swapping import SwapReport
    from hins_memory.swapping.plan import SwapPlan
    from hins_memory.synthesis import SynthesisReport
    from hins_memory.types import Ratio

    mined = MineReport(
        positives={text: 1},
        mean_confidence={text: 0.5},
        owners=2,
        owner_ratios={text: Ratio(0.5, 0.25, 0.25), f"{text}2": Ratio(0.5, 0.25, 0.25)},
        skipped={text: 1},
        notes=[text],
        samples={"hard": [TierSample(text, text, text)]},
    )

    synthesis = SynthesisReport(source=text, kinds=Counter({text: 1}), dropped=Counter({text: 1}), notes=[text])
    parts = (
        *mine_parts(mined),
        render(mined),
        *synthesis_parts(synthesis),
        *swap_parts(nasty_of(SwapPlan, text)),
        *swap_parts(nasty_of(SwapReport, text)),
        table((text, text), [(text, Path(text)), (None, 1e300)], title=text),
    )

    @command
    def shown() -> Result:
        note(text)
        with Bars() as bars:
            bars.waiting(text)
            bars(text, 1, 2)
            sys.stderr.write(f"{text}\n")
            logging.getLogger("hins_memory").warning("%s", text)
            try:
                raise ValueError(text)
            except ValueError:
                logging.getLogger("hins_memory").exception("It failed: %s", text)
        return Result(parts=parts)

    with streams(tty) as (out, err):
        guard_streams()
        set_up_logging(False)
        shown()
    assert not harmful(out.text, drawn=tty)
    assert not harmful(err.text, drawn=tty)
    assert "positives from" in out.text


@pytest.mark.slow
def test_what_encoders_say(tiny_version, settings):
    from hins_memory.registry.registry import Registry

    registry = Registry(settings)
    # Half a surrogate pair and NUL do not come into a registry.
    text = EVERYTHING.replace("\ud800", "").replace("\udcff", "").replace("\0", "")[:4000]
    registry.record_gate(tiny_version.id, {"passed": False, "forced": False, "incumbent": text, "failures": [text]})
    registry.record_live(f"mem0:{text}", tiny_version.id, "")
    for tty in (False, True):
        for arguments_ in (
            ("list",),
            ("show", tiny_version.id),
            ("list", "--json"),
            ("diff", tiny_version.id),
            ("prune",),
        ):
            code, out, err = hins(*on(settings), "encoders", *arguments_, tty=tty)
            assert code == 0, err
            assert not harmful(out + err, drawn=tty)


@pytest.mark.slow
def test_what_the_miner_says(settings, shallow_folder, monkeypatch):
    monkeypatch.setenv("HINS_BASE", str(shallow_folder))
    for number, text in enumerate((EVERYTHING, "What does Ann play?", "Ann plays the cello.")):
        record(settings, text, float(number))
    for tty, arguments_ in ((True, ("mine",)), (False, ("mine", "--report")), (True, ("synthesize",))):
        _, out, err = hins(*on(settings), "-v", *arguments_, tty=tty)
        assert "Traceback" not in err
        assert out or "Error: " in err
        assert not harmful(out + err, drawn=tty)


def test_a_text_is_a_text_and_no_markup(project):
    record(project, "[bold]loud[/bold] :smile: [/b]", 2e9)
    out = hins(*on(project), "log", "show", "-n", 1)[1]
    assert "[bold]" in out
    assert ":smile:" in out


@pytest.mark.slow
def test_what_ends_a_process_is_printable():
    program = (
        "from hins_memory.cli.terminal import guard_streams; guard_streams(); raise ValueError('\\x1b]0;t\\x07\\u202e')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert r"ValueError: \x1b]0;t\x07\u202e" in done.stderr
    assert not harmful(done.stderr)


@pytest.mark.slow
def test_a_terminal_without_unicode_gets_codes(project):
    record(project, "🦊", 3e9)
    environment = {"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    command_ = [sys.executable, "-m", "hins_memory", *map(str, on(project)), "log", "show", "-n", "1"]
    done = subprocess.run(command_, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"\U0001f98a" in done.stdout


SCREENS = {"screen.py", "terminal.py"}
WAYS_ROUND = {"print", "echo", "secho", "from_markup", "print_json", "pprint"}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(CLI.rglob("*.py")), ids=lambda path: str(path.relative_to(CLI)))
def test_nothing_prints_past_the_screen(path):
    """Only two modules know rich and the streams, so that no other can print markup or a raw text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "confirm":
                values = [one for one in ast.walk(node) if isinstance(one, ast.FormattedValue)]
                assert all(one.conversion == ord("r") for one in values), "a question shows values by !r"
            if path.name not in SCREENS:
                assert name not in WAYS_ROUND, f"line {node.lineno} prints by {name}"
        if path.name in SCREENS:
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "print":
                kind = node.args[0]
                assert not isinstance(kind, (ast.JoinedStr, ast.Constant, ast.BinOp)), (
                    f"line {node.lineno} prints markup"
                )
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            assert not [one for one in modules if one.split(".")[0] in ("rich", "click")], f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
            assert getattr(node.value, "id", "") != "sys", f"line {node.lineno} writes to a stream"
