"""`clusterer mi` in a thread of the test, and the shell client of OpenSIPS 2.2 for its FIFO."""

from __future__ import annotations

import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from clusterer.membership import State
from clusterer.mi.listen_address import Place
from clusterer.mi.serve import Options, serve
from clusterer.provisioning.table import NewRow
from clusterer.runtime.stop import StopFlag
from clusterer.services import Context
from clusterer.services.admin.mi_commands import MiCommands
from clusterer.services.table import reload
from tests.support.processes import EVENTUALLY_S, child_environment, wait_until
from tests.support.provisioning import KEY, NODE_A, provision

LIST = (
    b"200 OK\nCluster:: 1\n\tServer:: 2 DB_ID=2 URL=bin:127.0.0.2:5566 State=1 "
    b"Last_failed_attempt=0 Max_failed_attempts=3 no_tries=0 Seconds_until_enabling=5 "
    b"Description=Node B\n\n"
)
"""Reply to clusterer_list."""

_CLIENT = r"""
name="opensips_receiver_$$"; path="$DIR/$name"
mkfifo "$path" && chmod a+w "$path"
CMD=":$1:$name\n"; shift
while [ -n "$1" ]; do CMD="${CMD}${1}\n"; shift; done
CMD="${CMD}\n"
cat < "$path" &
printf "$CMD" > "$FIFO"
wait
rm "$path"
"""
"""What opensipsctl does for `opensipsctl fifo COMMAND PARAMETER...`."""


def provision_two_nodes(context: Context) -> None:
    """Put the nodes 1 and 2 of cluster 1 into table and Redis: `LIST` is node 1's reply."""
    provision(context, NODE_A, NewRow(1, 2, "bin:127.0.0.2:5566", duration=5, description="Node B"))
    reload.run(context)


@contextmanager
def serving(context: Context, options: Options) -> Iterator[None]:
    """Serve in a thread for the length of a ``with`` block, from the moment it can be reached."""
    stop = StopFlag()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with closing(MiCommands(context, "operator root@sip1")) as commands:
                serve(commands, options, stop)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    thread = threading.Thread(target=work, name="test-mi")
    thread.start()
    try:
        wait_until(lambda: failed or _reachable(options), message="the server")
        yield
        assert thread.is_alive(), failed
    finally:
        stop.set()
        thread.join(EVENTUALLY_S)
        stop.close()
        assert not thread.is_alive()
        assert not failed, failed


def _reachable(options: Options) -> bool:
    if isinstance(options.http, Place):
        with socket.socket() as probe:
            return probe.connect_ex((options.http.host, options.http.port)) == 0
    if options.fifo is not None:  # its mode is set last, once it is open
        made = options.fifo.exists()
        return made and stat.S_IMODE(options.fifo.stat().st_mode) == options.access.mode
    place = options.http or options.datagram
    return isinstance(place, Path) and place.exists()


def ctl(fifo: Path, *words: str) -> bytes:
    """Run the shell client, and return its reply."""
    environment = child_environment({"FIFO": str(fifo), "DIR": str(fifo.parent)})
    done = subprocess.run(
        ["/bin/sh", "-c", _CLIENT, "opensipsctl", *words],
        env=environment,
        capture_output=True,
        timeout=EVENTUALLY_S,
        check=True,
    )
    return done.stdout


def state(context: Context, machine_id: int = 2) -> State:
    """Return the state of a node of cluster 1."""
    return context.nodes.view(KEY).nodes[machine_id].state
