"""The Python that tests start programs with does what a Python of its own does."""

import os
import signal
import subprocess
import sys

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
