"""An instance as a process of its own: prints what its callback gets, answers packets of type 1.

Run as ``python -m tests.support.instance TIMEOUT``; settings come from the environment.
"""

from __future__ import annotations

import json
import logging
import signal
import sys

from clusterer import Clusterer, ReceiveInfo

MODULE = "test"
ASK, ANSWER = 1, 2


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    instance = Clusterer()

    def callback(kind: int, info: ReceiveInfo | None, machine_id: int) -> None:
        number = info.packet.fields().pop_int() if info else None
        print(json.dumps({"type": kind, "from": machine_id, "n": number}), flush=True)
        if kind == ASK and number is not None:
            instance.send_to(1, "bin", instance.packet(MODULE, ANSWER).push_int(number).build())

    instance.register_module(MODULE, "bin", callback, float(sys.argv[1]), True, 1)
    signal.signal(signal.SIGTERM, lambda *_: instance.stop())
    print("serving", flush=True)
    instance.serve()
    instance.close()


if __name__ == "__main__":
    main()
