"""The thread that sends posted packets, and those of tasks, to the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from clusterer.errors import ClustererError
from clusterer.runtime import forks
from clusterer.runtime.rounds import Rounds
from clusterer.settings import Settings
from clusterer.store.packets import PacketLog

log = logging.getLogger(__name__)

RETRY_S = 0.25
"""Between two attempts while Redis is away."""

LOG_INTERVAL_S = 10.0
"""Between two log lines about packets that the full buffer did not keep."""


class BackgroundSender:
    """Sends what waits in the queue of a `PacketLog` and has no caller that waits for it.

    Posted packets wait up to ``flush_interval`` for more packets; those of tasks do not wait.
    The thread starts with the first packet of a process, also in a forked child.
    """

    def __init__(
        self, settings: Settings, sender: int, packets: PacketLog, enqueue: Callable[[], None]
    ) -> None:
        """``enqueue`` enqueues a delivery job, and does not raise."""
        self._gather_s = settings.flush_interval
        self._sender = sender
        self._packets = packets
        self._enqueue = enqueue
        self._lock = forks.lock()
        self._log_at = 0.0
        self._thread: threading.Thread | None = None
        self.runs = False
        """Whether the thread was started in this process, and not stopped since."""
        self._stop = threading.Event()
        self._failed = False
        self._waits = False
        self._unkept = 0
        forks.renew_in_child(self)

    def renew_in_child(self) -> None:
        """Forget the thread, which is the parent's."""
        self._thread = None
        self.runs = False
        self._stop = threading.Event()
        self._failed = False
        self._waits = False
        self._unkept = 0

    def start(self) -> None:
        """Start the thread unless it runs."""
        with self._lock:
            if self._thread is None:
                self._stop = stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(stop,), name="clusterer-sender", daemon=True
                )
                self._thread.start()
                self.runs = True

    def stop(self, timeout_s: float) -> None:
        """End the thread, and wait for it that long; the next packet starts another."""
        with self._lock:
            thread, self._thread = self._thread, None
            self.runs = False
            self._stop.set()
        queue = self._packets.queue
        queue.background_work.set()
        queue.hurry.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _run(self, stop: threading.Event) -> None:
        rounds = Rounds("sender")
        queue = self._packets.queue
        began = 0.0
        ends = False
        while not ends:
            if not queue.has_background_work():
                if stop.is_set():
                    return
                queue.background_work.wait()
                continue
            queue.hurry.clear()
            if not stop.is_set():
                self._pause(began)
            ends = stop.is_set()  # with a last round
            began = monotonic()
            failed = True
            with rounds.guard():
                failed = not self._round()
            self._failed = failed

    def _pause(self, began: float) -> None:
        """Let packets gather, or Redis come back; ``began`` is when the last round did."""
        queue = self._packets.queue
        if self._failed:
            if not queue.has_tasks():
                queue.hurry.wait(RETRY_S)
        elif queue.may_gather():
            queue.hurry.wait(max(0.0, began + self._gather_s - monotonic()))

    def _round(self) -> bool:
        """Send queued packets; return whether that succeeded."""
        try:
            enqueue, error = self._packets.send_queued()
        except Exception as bug:
            self._packets.queue.keep(ClustererError(f"cannot send: {bug!r}"))
            raise
        if enqueue:
            self._enqueue()
        self._log_state(error)
        self._log_unkept()
        return error is None

    def _log_state(self, error: ClustererError | None) -> None:
        """Log when posted packets begin to wait for Redis, and when they are sent again."""
        waiting = self._packets.queue.posted_bytes
        if error is not None and waiting and not self._waits:
            self._waits = True
            text = "sender %d: posted packets wait for Redis: %s; retrying"
            log.warning(text, self._sender, error)
        elif error is None and self._waits:
            self._waits = False
            log.warning("sender %d: posted packets are sent again", self._sender)

    def _log_unkept(self) -> None:
        """Log, at most once in `LOG_INTERVAL_S`, how many packets the full buffer did not keep."""
        counts, now = self._packets.queue.counts, monotonic()
        unkept = counts.rejected + counts.dropped
        if unkept > self._unkept and now >= self._log_at:
            text = "sender %d: the post buffer is full: %d packets rejected and %d dropped so far"
            log.warning(text, self._sender, counts.rejected, counts.dropped)
            self._unkept, self._log_at = unkept, now + LOG_INTERVAL_S
