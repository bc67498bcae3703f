"""Processes of an earlier version and of this one side by side on one Redis, under traffic."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import sleep

import pytest

from clusterer import Settings
from clusterer.settings import as_environment
from tests.support.archive import BEFORE_PATHS, extracted
from tests.support.cluster import assert_accounted, load, node, node_for
from tests.support.ports import free_port
from tests.support.processes import ChildProcess, spawn, wait_until
from tests.support.receiver import BinReceiver
from tests.support.scale import scaled

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]

STAGE_S = scaled(3, 20)
"""Seconds of traffic in each of three stages."""
PATIENT_S = 60.0
KINDS = (
    ["-m", "workers", "delivery"],
    ["-m", "workers", "maintenance"],
    ["-m", "scheduler"],
)
OLD, NEW = 1, 4
"""Senders, by the version of their code; both have the same nodes and the same workers."""
SENDER = """
import signal, sys, threading
from clusterer import Clusterer
stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())
with Clusterer(int(sys.argv[1])) as sender:
    number = 0
    print("begun", flush=True)
    while not stop.wait(0.005):
        sender.send_to(1, "bin", sender.packet("test", 1).push_int(number).build())
        number += 1
print(f"sent {number}", flush=True)
"""


class Side:
    """Runs processes with the code of one version."""

    def __init__(self, code: Path, settings: Settings, stack: ExitStack) -> None:
        self._environment = as_environment(settings) | {"PYTHONPATH": str(code)}
        self._stack = stack
        self.processes: list[tuple[ExitStack, ChildProcess]] = []

    def run(self, *words: str) -> ChildProcess:
        own = self._stack.enter_context(ExitStack())
        child = own.enter_context(spawn(["-P", *words], self._environment, measured=False))
        self.processes.append((own, child))
        return child

    def start(self) -> None:
        for words in KINDS:
            self.run(*words)

    def stop(self) -> None:
        """End the processes one after the other, as an operator does."""
        for own, child in self.processes:
            assert child.returncode is None, child.output()
            assert child.terminate(PATIENT_S) == 0
            assert "Traceback" not in child.output()
            own.close()


@contextmanager
def sending(side: Side, machine_id: int) -> Iterator[list[int]]:
    """Run a sender; at the end the list has the number of its packets."""
    sent: list[int] = []
    child = side.run("-c", SENDER, str(machine_id))
    side.processes.pop()  # it is stopped here
    child.wait_for_output("begun", PATIENT_S)
    yield sent
    assert child.returncode is None, child.output()
    child.signal(signal.SIGINT)
    child.wait_for_output("sent ", PATIENT_S)
    assert child.wait(PATIENT_S) == 0
    sent.append(int(child.output().rpartition("sent ")[2]))


def received(peer: BinReceiver, sender: int) -> list[int]:
    found = [p.fields().pop_int() for p in list(peer.packets) if p.machine_id == sender]
    return [number for number in found if number is not None]


def test_upgrade_in_steps_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, linger=0.3)
    before = extracted(BEFORE_PATHS, tmp_path)
    with ExitStack() as stack:
        peers = [stack.enter_context(BinReceiver()) for _ in range(3)]
        others = [node(sender, free_port()) for sender in (OLD, NEW)]
        load(settings, [*others, *(node_for(2 + 3 * i, p) for i, p in enumerate(peers))])
        old = Side(before, settings, stack)
        new = Side(Path.cwd(), settings, stack)
        old.start()
        with sending(old, OLD) as sent_old:
            sleep(STAGE_S)
            new.start()
            with sending(new, NEW) as sent_new:
                sleep(STAGE_S)
                old.stop()
                sleep(STAGE_S)

        sent = {OLD: sent_old[0], NEW: sent_new[0]}

        def missing() -> dict[tuple[int, int], int]:
            return {
                (peer.port, sender): sent[sender] - len(set(received(peer, sender)))
                for peer in peers
                for sender in sent
            }

        with suppress(TimeoutError):
            wait_until(lambda: not any(missing().values()), PATIENT_S)
        assert not any(missing().values()), missing()
        for peer in peers:
            for sender in (OLD, NEW):
                first = list(dict.fromkeys(received(peer, sender)))
                assert first == sorted(first), "in the order sent"
        wait_until(lambda: accounted(settings), PATIENT_S, "all packets are counted")
        print(f"old sender {sent[OLD]} packets, new sender {sent[NEW]}, to 3 nodes each")
        new.stop()


def accounted(settings: Settings) -> bool:
    try:
        assert_accounted(settings)
    except AssertionError:
        return False
    return True
