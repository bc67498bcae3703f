"""Children that die with their parent, are restarted, and end in time. Real processes."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterer.errors import ClustererError
from clusterer.processes import ChildSpec, Line, ProcessGroup, Supervisor
from clusterer.processes import supervisor as supervising
from clusterer.runtime.stop import StopFlag
from tests.support.pids import alive, wait_until_gone
from tests.support.processes import EVENTUALLY_S, LATE_S, spawn, wait_until

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); "
SLEEP = "time.sleep(60)"


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    with ProcessGroup() as group:
        yield group


def python(name: str, code: str, **options: object) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", code), **options)  # type: ignore[arg-type]


def read_until(group: ProcessGroup, count: int) -> list[Line]:
    lines: list[Line] = []

    def enough() -> bool:
        lines.extend(group.read(0.05))
        return len(lines) >= count

    wait_until(enough, message=f"{count} lines")
    return lines


def test_process_group_reads_both_outputs_by_line(group: ProcessGroup) -> None:
    code = "import sys; print('one'); print('two', file=sys.stderr); print('no end', end='')"
    child = group.start(python("talker", code))
    lines = read_until(group, 3)
    assert set(lines) == {
        Line("talker", "one", False),
        Line("talker", "two", True),
        Line("talker", "no end", False),
    }
    assert child.wait(EVENTUALLY_S)


def test_process_group_cuts_endless_line(group: ProcessGroup) -> None:
    group.start(python("bore", "print('x' * 200_000)"))
    lines = read_until(group, 2)
    assert max(len(line.text) for line in lines) <= 2 * 65_536


def test_process_group_missing_program_is_named(group: ProcessGroup) -> None:
    with pytest.raises(ClustererError, match=r"cannot start ghost .*/no/such/program"):
        group.start(ChildSpec("ghost", ("/no/such/program",)))


def test_process_group_start_outside_main_thread_raises(group: ProcessGroup) -> None:
    caught: list[Exception] = []

    def start() -> None:
        try:
            group.start(python("orphan", SLEEP))
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_process_group_end_kills_child_ignoring_sigterm(group: ProcessGroup) -> None:
    deaf = group.start(python("deaf", STUBBORN + SLEEP))
    polite = group.start(python("polite", "import time; print('here', flush=True); " + SLEEP))
    read_until(group, 2)
    started = time.monotonic()
    group.end(grace_s=0.3)
    assert time.monotonic() - started < 2 + LATE_S
    assert deaf.exit_code == -signal.SIGKILL
    assert polite.exit_code == -signal.SIGTERM


def test_process_group_child_with_much_output_ends(group: ProcessGroup) -> None:
    code = (
        "import signal, sys, time\n"
        "def bye(*_):\n"
        "    for _ in range(40): print('x' * 10_000)\n"
        "    print('goodbye', flush=True); sys.exit(0)\n"
        "signal.signal(15, bye); print('ready', flush=True); time.sleep(60)"
    )
    child = group.start(python("talker", code))
    read_until(group, 1)
    lines = group.end()
    assert child.exit_code == 0
    assert lines[-1].text == "goodbye"


def test_process_group_last_child_ends_last(group: ProcessGroup) -> None:
    code = (
        "import signal, sys, time\n"
        "def bye(*_): print(time.monotonic()); sys.exit()\n"
        "signal.signal(15, bye); print('ready', flush=True); time.sleep(60)"
    )
    group.start(python("base", code, last=True))
    group.start(python("user", code))
    read_until(group, 2)
    ended = {line.name: float(line.text) for line in group.end()}
    assert ended["user"] < ended["base"]


IMPATIENT = """
import os, signal
from clusterer.runtime.stop import interrupt_on_signals
interrupt_on_signals()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
except KeyboardInterrupt:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    print("cleaned up", flush=True)
"""


def test_process_group_second_signal_does_not_stop_cleanup() -> None:
    with spawn(["-c", IMPATIENT]) as child:
        assert child.wait() == 0
        assert child.output() == "cleaned up\n"


PARENT = """
import signal, sys, time
from clusterer.processes import ChildSpec, ProcessGroup
group = ProcessGroup()
code = "import time; time.sleep(60)"
for number in (signal.SIGTERM, signal.SIGKILL):
    child = group.start(ChildSpec(str(number), (sys.executable, "-c", code), death_signal=number))
    print(child.pid, flush=True)
print("started", flush=True)
time.sleep(60)
"""


def test_process_group_parent_killed_ends_children() -> None:
    with spawn(["-c", PARENT]) as parent:
        parent.wait_for_output("started")
        pids = [int(word) for word in parent.output().split()[:2]]
        assert all(map(alive, pids))
        parent.kill()
        wait_until_gone(pids)


def test_restart_pause_grows_and_is_reset() -> None:
    pauses = [0.0]
    for _ in range(9):
        pauses.append(supervising.pause_after(1.0, pauses[-1]))
    assert pauses[1:] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert supervising.pause_after(supervising.HEALTHY_AFTER_S, 30.0) == 0.5


@pytest.mark.parametrize(
    ("code", "words"), [(3, "exit code 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_process_end_is_described(code: int, words: str) -> None:
    assert supervising.describe_exit(code) == words


def test_process_group_crashed_child_is_started_again(
    group: ProcessGroup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervising, "FIRST_PAUSE_S", 0.01)
    stop, said = StopFlag(), list[Line]()
    marks = tmp_path / "marks"
    code = f"import sys; open({str(marks)!r}, 'a').write('x'); print('alive'); sys.exit(3)"

    def say(line: Line) -> None:
        said.append(line)
        if len(said) == 3:
            stop.set()

    Supervisor(group, stop, say).run([python("crasher", code)])
    assert [line.text for line in said] == ["alive"] * 3
    assert marks.read_text(encoding="utf-8").count("x") >= 3
    assert group.children == {}


@pytest.mark.parametrize("command", [["worker", "maintenance"], ["scheduler"]])
def test_process_ctrl_c_during_import_ends_in_order(
    command: list[str], redis_url: str, tmp_path: Path
) -> None:
    """Ctrl-C comes before the program's first line: loading takes a fifth of a second and more."""
    impatient = "import os, signal, sys\nif '-P' in sys.orig_argv:\n"
    (tmp_path / "sitecustomize.py").write_text(f"{impatient}    os.kill(os.getpid(), 2)\n")
    environment = {"CLUSTERER_REDIS_URL": redis_url, "PYTHONPATH": str(tmp_path)}
    with spawn(["-m", "clusterer", *command], environment) as child:
        assert child.wait(EVENTUALLY_S) == 0
        assert "Traceback" not in child.output()
