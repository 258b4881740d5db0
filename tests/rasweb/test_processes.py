import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rasweb import processes, tether


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def wait_until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


PARENT = """
import sys
from rasweb import processes
child = processes.start(["sleep", "60"])
print(child.pid, flush=True)
child.wait()
"""


def test_a_started_process_dies_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    wait_until(lambda: "sleep" in Path(f"/proc/{child}/cmdline").read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(child))


def test_a_process_whose_parent_is_already_gone_ends_at_once():
    nobody = 2**22 + 1
    result = subprocess.run(
        [sys.executable, "-I", "-S", tether.__file__, str(nobody), "echo", "alive"],
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, b"")


def test_a_missing_program_is_one_sentence():
    child = processes.start(["no-such-program"], stderr=subprocess.PIPE)
    _, stderr = child.communicate(timeout=5)
    assert (child.returncode, stderr) == (1, b"no-such-program: No such file or directory\n")


def test_the_clean_environment_hands_on_no_secret(monkeypatch):
    monkeypatch.setenv("RASWEB_SECRET_KEY", "hidden")
    monkeypatch.setenv("LD_PRELOAD", "x.so")
    environment = processes.clean_environment({"EXTRA": "1"})
    assert environment["EXTRA"] == "1"
    assert not {"RASWEB_SECRET_KEY", "LD_PRELOAD", "PYTHONPATH"} & environment.keys()


def test_stop_kills_the_session_of_a_process_that_does_not_end():
    script = "trap '' TERM; sleep 60 & echo $!; wait; wait"
    child = processes.start(["sh", "-c", script], stdout=subprocess.PIPE)
    grandchild = int(child.stdout.readline())
    assert processes.stop(child, grace=0.05) == -signal.SIGKILL
    wait_until(lambda: gone(grandchild))


def test_stop_returns_the_status_of_a_process_that_ends_by_itself():
    child = processes.start(
        ["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"], stdout=subprocess.PIPE
    )
    child.stdout.readline()
    assert processes.stop(child, grace=5) == 3
    assert os.getpgid(0) != child.pid
