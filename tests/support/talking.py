"""An instance as a process of its own that sends packets all the time.

Run as ``python talking.py INTERVAL_S SIZE``: a packet of at least SIZE bytes each INTERVAL_S,
0 for none. SIGUSR1 has it pause, SIGUSR2 go on. Settings come from the environment. It imports
nothing of the tests, so that the code of another version can run it.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading

from clusterer import Clusterer
from clusterer.errors import ClustererError

log = logging.getLogger(__name__)

MODULE = "talk"


def main() -> None:
    """Serve and send until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    interval_s, size = float(sys.argv[1]), int(sys.argv[2])
    instance = Clusterer()
    instance.register_module(MODULE, "bin", lambda *_: None, 0, True, 1)
    stop, talking = threading.Event(), threading.Event()
    talking.set()

    def talk() -> None:
        number = 0
        while not stop.wait(interval_s):
            talking.wait()
            packet = instance.packet(MODULE, 1).push_int(number).push_str("x" * size)
            try:
                instance.send_to(1, "bin", packet.build())
            except ClustererError as error:
                log.warning("not sent: %s", error)
            number += 1

    if interval_s:
        threading.Thread(target=talk, name="talk", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: instance.stop())
    signal.signal(signal.SIGUSR1, lambda *_: talking.clear())
    signal.signal(signal.SIGUSR2, lambda *_: talking.set())
    instance.serve()
    stop.set()
    instance.close()


if __name__ == "__main__":
    main()
