"""Child process: senders that use the public API, as any application would."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, monotonic_ns, perf_counter_ns, sleep

from clusterer import Clusterer
from scripts.benchmarks.frames import packet
from scripts.benchmarks.serving import answer, argument, serve


class Senders:
    """One instance per machine_id; machine S sends to cluster S."""

    def __init__(self, machine_ids: list[int]) -> None:
        self._instances = {number: Clusterer(server_id=number) for number in machine_ids}

    def single(self, sender: int, packets: int) -> dict[str, float]:
        """Send packets one call each."""
        send_to, one = self._instances[sender].send_to, packet(sender)
        return _timed(lambda: [send_to(sender, "bin", one) for _ in range(packets)])

    def batch(self, sender: int, packets: int, size: int = 100) -> dict[str, float]:
        """Send packets ``size`` a call."""
        send_many, some = self._instances[sender].send_many, [packet(sender)] * size
        return _timed(lambda: [send_many(sender, "bin", some) for _ in range(packets // size)])

    def threads(self, sender: int, threads: int, seconds: float) -> float:
        """Send from several threads at once; return packets per second."""
        instance, one = self._instances[sender], packet(sender)
        sent = [0] * threads
        end = monotonic() + seconds

        def work(number: int) -> None:
            while monotonic() < end:
                instance.send_to(sender, "bin", one)
                sent[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        begun = monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(sent) / (monotonic() - begun)

    def paced(self, senders: list[int], packets: int, rate: float) -> list[float]:
        """Send ``packets`` in all at a steady ``rate`` per second, senders taking turns.

        Returns how long each call took, in µs.
        """
        took = []
        due = monotonic()
        for number in range(packets):
            sleep(max(due - monotonic(), 0.0))
            due += 1 / rate
            sender = senders[number % len(senders)]
            fresh = packet(sender)
            begun = perf_counter_ns()
            self._instances[sender].send_to(sender, "bin", fresh)
            took.append((perf_counter_ns() - begun) / 1e3)
        return took

    def get_nodes(self, sender: int, calls: int) -> list[float]:
        """Ask for the nodes; return how long each call took, in µs."""
        ask = self._instances[sender].get_nodes
        return _each(lambda: ask(sender, "bin"), calls)

    def check(self, sender: int, machine_id: int, calls: int) -> list[float]:
        """Check a known source; return how long each call took, in µs."""
        ask = self._instances[sender].check
        return _each(lambda: ask(sender, ("127.0.0.1", 40_000), machine_id, "bin"), calls)


def _timed(work: Callable[[], object]) -> dict[str, float]:
    started = monotonic_ns()
    work()
    return {"started_ns": started, "seconds": (monotonic_ns() - started) / 1e9}


def _each(call: Callable[[], object], calls: int) -> list[float]:
    took = []
    for _ in range(calls):
        begun = perf_counter_ns()
        call()
        took.append((perf_counter_ns() - begun) / 1e3)
    return took


def main() -> None:
    """Answer calls until the parent ends."""
    senders = Senders(argument()["machine_ids"])
    answer("ready")
    serve(
        {
            "single": senders.single,
            "batch": senders.batch,
            "threads": senders.threads,
            "paced": senders.paced,
            "get_nodes": senders.get_nodes,
            "check": senders.check,
        }
    )


if __name__ == "__main__":
    main()
