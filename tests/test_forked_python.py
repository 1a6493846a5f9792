"""The Python that tests start programs with does what a Python of its own does."""

import os
import signal
import subprocess
import sys

import pytest
from forked_python import PYTHON
from waiting import until

CODE = "import os, sys; print(sys.argv, os.getcwd(), os.environ['X'], sys.stdin.read(), __name__)"


def test_a_program_is_run_as_python_runs_it(forked_python, tmp_path):
    (tmp_path / "program.py").write_text(CODE)
    for arguments in (["-c", CODE, "a", "ü"], ["program.py", "a"], ["-m", "program", "a"], ["-c", "1 / 0"]):
        ran = [
            subprocess.run(
                [python, *arguments],
                cwd=tmp_path,
                env={**os.environ, "X": "ä"},
                input="said",
                capture_output=True,
                text=True,
            )
            for python in (sys.executable, forked_python)
        ]
        assert ran[0].stdout == ran[1].stdout
        assert ran[0].returncode == ran[1].returncode
        assert ("ZeroDivisionError" in ran[1].stderr) == (ran[1].returncode != 0)


def test_it_ends_as_the_program_does_and_the_program_with_it(forked_python):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([forked_python, "-c", kill]).returncode == -signal.SIGKILL
    assert subprocess.run([forked_python, "-c", "raise SystemExit(7)"]).returncode == 7
    wait = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen([forked_python, "-c", wait], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            process.send_signal(number)
            # The end of its output: the program has ended too.
            assert process.stdout.read() == ""
            assert process.wait(60) == -number
            until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))


def test_it_is_given_the_descriptors_that_are_passed_on(forked_python):
    read, write = os.pipe()
    code = f"import os; os.write({write}, b'said')"
    subprocess.run([forked_python, "-c", code], pass_fds=[write], check=True)
    os.close(write)
    with open(read, "rb") as stream:
        assert stream.read() == b"said"


@pytest.mark.skipif(PYTHON not in os.environ, reason="tests run in one process, or the system has no pidfd_open")
def test_the_processes_of_the_tests_are_forked_from_one_that_has_torch():
    with open("/proc/self/cmdline", "rb") as stream:
        assert b"forked_python" in stream.read()
    # It is a Python of its own that a test starts, unless it asks for another.
    assert not os.path.samefile(sys.executable, os.environ[PYTHON])
