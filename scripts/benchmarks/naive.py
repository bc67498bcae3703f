"""Child processes: the naive way, one RQ job per packet and node."""

from __future__ import annotations

import logging
import socket
from time import monotonic_ns

import redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from scripts.benchmarks.frames import packet
from scripts.benchmarks.serving import answer, argument, serve

QUEUE = "bench-naive"
_sockets: dict[int, socket.socket] = {}


def deliver(port: int, frame: str) -> None:
    """The job: write one frame (hexadecimal) to a node, over a connection that is kept."""
    if port not in _sockets:
        _sockets[port] = socket.create_connection(("127.0.0.1", port))
        _sockets[port].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _sockets[port].sendall(bytes.fromhex(frame))


class Sender:
    """Enqueues the jobs."""

    def __init__(self, url: str) -> None:
        self._queue = Queue(QUEUE, connection=redis.Redis.from_url(url), serializer=JSONSerializer)

    def send(self, packets: int, ports: list[int]) -> dict[str, float]:
        """Enqueue a job for each packet and node."""
        frame = packet(1).encode().hex()
        started = monotonic_ns()
        for _ in range(packets):
            for port in ports:
                self._queue.enqueue("scripts.benchmarks.naive.deliver", port, frame)
        return {"started_ns": started, "seconds": (monotonic_ns() - started) / 1e9}


def work(url: str) -> None:
    """Be RQ's SimpleWorker until SIGTERM."""
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    connection = redis.Redis.from_url(url)
    answer("ready")
    worker = SimpleWorker([QUEUE], connection=connection, serializer=JSONSerializer)
    worker.work(logging_level="WARNING")


def main() -> None:
    """Be the worker, or the sender."""
    given = argument()
    if given.get("worker"):
        work(given["url"])
        return
    sender = Sender(given["url"])
    answer("ready")
    serve({"send": sender.send})


if __name__ == "__main__":
    main()
