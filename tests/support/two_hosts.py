"""A running system for the console: `clusterer up --console` with node 1, and node 2 beside it.

Node 3 is a program of the test that observes calls and contacts.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from clusterer import Clusterer
from clusterer.modules.dialog import Dialogs
from clusterer.modules.usrloc import Usrloc
from clusterer.payloads import Message
from clusterer.provisioning.table import NewRow
from clusterer.services import Context
from clusterer.services.table import init_db
from clusterer.settings import Settings
from tests.support.listening import peer
from tests.support.ports import free_port
from tests.support.processes import EVENTUALLY_S, ChildProcess, spawn

START_S = EVENTUALLY_S
DURATION_S = 5
"""Seconds for which a node stays disabled."""

_REPLICATE = ("--replicate-pipes-to", "1", "--accept-pipes-from", "1")


class System:
    """The processes, and where the console is."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.settings = Settings(data_dir=str(data))
        self.url = ""
        self._stack = ExitStack()
        self._node_2 = ExitStack()

    def start(self) -> None:
        """Start all processes; returns when the console listens."""
        port = str(free_port())
        up = self._spawn(self._stack, "up", "--console", "--console-port", port, *_REPLICATE)
        up.wait_for_output("scheduler: now active", START_S)
        self.start_node_2()
        up.wait_for_output("listening on http://", START_S)
        self.url = re.findall(r"http://[\d.:]+", up.output())[0]

    def start_node_2(self) -> None:
        """Start the instance that is node 2."""
        self.node_2 = self._spawn(self._node_2, "node", "--server-id", "2", *_REPLICATE)
        self.node_2.wait_for_output("listening on", START_S)

    def kill_node_2(self) -> None:
        """End the instance that is node 2 without a word to the others."""
        os.kill(self.node_2.pid, signal.SIGKILL)
        self._node_2.close()

    def observe(self, *messages: Message) -> None:
        """Start node 3, and send it messages of node 2."""
        instance = Clusterer(3, settings=self.settings)
        thread = threading.Thread(target=instance.serve, name="serve 3")
        self._stack.callback(thread.join, START_S)
        for part in (instance, Dialogs(instance, 1), Usrloc(instance, 1)):
            self._stack.enter_context(part)
        thread.start()
        assert instance.listener.ready.wait(START_S)
        ((_, port),) = instance.listener.addresses
        with peer(port, 2, "127.0.0.3") as connection:
            connection.sendall(b"".join(message.encode(2).encode() for message in messages))

    def close(self) -> None:
        """End all processes."""
        self._node_2.close()
        self._stack.close()

    def _spawn(self, stack: ExitStack, *words: str) -> ChildProcess:
        command = ["-m", "clusterer", *words, "--data-dir", str(self.data)]
        return stack.enter_context(spawn(command))


@contextmanager
def running(data: Path) -> Iterator[System]:
    """Run a cluster with two instances and the console for the length of a ``with`` block."""
    rows = (_row(1, "Frankfurt, rack 7"), _row(2, "Paris"), _row(3, "Observer of calls"))
    with closing(Context(Settings(data_dir=str(data)))) as context:
        init_db.run(context)
        init_db.add(context, rows)
    with closing(System(data)) as system:
        system.start()
        yield system


def _row(machine_id: int, description: str) -> NewRow:
    host = f"127.0.0.{machine_id}"
    return NewRow(
        1,
        machine_id,
        f"bin:{host}:{free_port(host)}",
        duration=DURATION_S,
        description=description,
    )
