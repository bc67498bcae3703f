"""Measurements of FEEDBACK and NETWORK: controller, sources in /proc, sampler."""

from __future__ import annotations

import logging
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterer.modules.ratelimit import Algorithm, CpuLoad, QueuedBytes, RateLimit
from clusterer.modules.ratelimit.measuring import Controller
from tests.support.fake_cluster import FakeClock, FakeCluster
from tests.support.processes import EVENTUALLY_S, wait_until

FEEDBACK, NETWORK, TAILDROP = Algorithm.FEEDBACK, Algorithm.NETWORK, Algorithm.TAILDROP

# -- the controller ----------------------------------------------------------------------------


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 99))
def test_controller_any_loads_match_model(loads: list[int], limit: int) -> None:
    controller = Controller()
    integral = Fraction(0)
    for load in loads:
        error = Fraction(limit - load, 100)
        # Where the sum hits 0 exactly, floats may fall on either side.
        if integral < 0 or error < 0:
            integral += error
        output = max(0, float(-25 * integral))
        assert controller.step(load / 100, limit) == pytest.approx(output, abs=1e-6)
        if abs(integral) < Fraction(1, 1_000):
            break


def test_controller_reset_forgets_steps() -> None:
    controller = Controller()
    first = [controller.step(load, 50) for load in (0.9, 0.6)]
    controller.reset()
    assert [controller.step(load, 50) for load in (0.9, 0.6)] == first


@pytest.mark.parametrize(("load", "limit"), [(0.7, 50), (0.9, 70), (0.3, 10), (0.55, 35)])
def test_controller_float_rounding_adds_no_drop_rate(load: float, limit: int) -> None:
    assert Controller().step(load, limit) == 5.0


# -- CPU load ----------------------------------------------------------------------------------


def stat(proc: Path, *ticks: int, name: str = "cpu ") -> None:
    (proc / "stat").write_text(f"{name} {' '.join(map(str, ticks))}\ncpu0 1 2 3 4\n")


@pytest.mark.parametrize(
    ("ticks", "load"),
    [
        ((100, 0, 0, 100, 0, 0, 0, 0, 0, 0), 0.0),  # nothing passed
        ((150, 0, 0, 150, 0, 0, 0, 0, 0, 0), 0.5),
        ((100, 0, 0, 200, 0, 0, 0, 0, 0, 0), 0.0),
        ((200, 0, 0, 100, 0, 0, 0, 0, 0, 0), 1.0),
        ((110, 10, 10, 130, 10, 10, 10, 10, 99, 99), 0.6),  # user includes guests
        ((100, 0, 0, 150, 50, 0, 0, 0, 0, 0), 0.0),  # waiting for disks
        ((101, 0, 0, 99, 0, 0, 0, 0, 0, 0), 0.0),  # backwards
        ((110, 0, 0, 99, 0, 0, 0, 0, 0, 0), 1.0),
        ((99, 0, 0, 110, 0, 0, 0, 0, 0, 0), 0.0),
        ((110, 0, 0, 110, 0), 0.5),  # an old kernel
    ],
)
def test_cpu_load_returns_busy_share_since_last_call(
    tmp_path: Path, ticks: tuple[int, ...], load: float
) -> None:
    source = CpuLoad(tmp_path)
    stat(tmp_path, 100, 0, 0, 100, 0, 0, 0, 0, 0, 0)
    assert source() == 0.0
    stat(tmp_path, *ticks)
    assert source() == pytest.approx(load)


def test_cpu_load_third_call_compares_with_second(tmp_path: Path) -> None:
    source = CpuLoad(tmp_path)
    loads = []
    for busy, idle in ((0, 0), (100, 0), (100, 100), (125, 175)):
        stat(tmp_path, busy, 0, 0, idle, 0)
        loads.append(source())
    assert loads == [0.0, 1.0, 0.0, 0.25]


@pytest.mark.parametrize("text", ["", "cpu 1 2 3 4\n", "cpu0 1 2 3 4 5\n", "cpu 1 2 x 4 5\n"])
def test_cpu_load_invalid_stat_raises(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    with pytest.raises(ValueError):
        CpuLoad(tmp_path)()


# -- unread bytes ------------------------------------------------------------------------------

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
V6 = "0" * 31 + "1"


def sockets(proc: Path, name: str, *lines: tuple[str, str, int, int]) -> None:
    (proc / "net").mkdir(exist_ok=True)
    text = "".join(
        f"   {n}: {local} 00000000:0000 {state} {tx:08X}:{rx:08X} 00:00000000 00000000  0  0 1\n"
        for n, (local, state, tx, rx) in enumerate(lines)
    )
    (proc / "net" / name).write_text(HEAD + text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    sockets(tmp_path, "udp", ("0100007F:13C4", "07", 5, 0x1000), ("00000000:0035", "07", 0, 3))
    sockets(tmp_path, "tcp", ("0100007F:15B3", "0A", 0, 7), ("0100007F:15B3", "01", 9, 0x200))
    sockets(tmp_path, "udp6", (f"{V6}:13C4", "07", 0, 0x40))
    sockets(tmp_path, "tcp6", (f"{V6}:15B3", "08", 0, 0x10), (f"{V6}:15B3", "0A", 0, 1))
    return tmp_path


@pytest.mark.parametrize(
    ("ports", "waiting"),
    [
        ((), 0x1000 + 3 + 0x200 + 0x40 + 0x10),
        ((5060,), 0x1000 + 0x40),
        ((5555,), 0x200 + 0x10),
        ({53, 5060}, 0x1000 + 0x40 + 3),
        ((80,), 0),
    ],
)
def test_queued_bytes_sums_unread_bytes_of_ports(proc: Path, ports: Any, waiting: int) -> None:
    """Bytes to be sent and connections to be accepted do not count."""
    assert QueuedBytes(ports, proc)() == waiting


def test_queued_bytes_without_ipv6_counts_ipv4(proc: Path) -> None:
    for name in ("udp6", "tcp6"):
        (proc / "net" / name).unlink()
    assert QueuedBytes((), proc)() == 0x1000 + 3 + 0x200


@pytest.mark.parametrize("name", ["udp", "tcp"])
def test_queued_bytes_missing_table_raises(proc: Path, name: str) -> None:
    (proc / "net" / name).unlink()
    with pytest.raises(FileNotFoundError):
        QueuedBytes((), proc)()


@pytest.mark.parametrize("line", ["", "what is this", "0: 0:0035 0 07 00000000:xyz 0"])
def test_queued_bytes_invalid_line_raises_with_line(proc: Path, line: str) -> None:
    with (proc / "net" / "tcp").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"net/tcp: invalid line b'"):
        QueuedBytes((), proc)()


# -- the sampler -------------------------------------------------------------------------------


class Sources:
    """Sources that count their calls and return or raise what a test sets."""

    def __init__(self) -> None:
        self.load: float | Exception = 0.0
        self.queued: float | Exception = 0
        self.calls = {"cpu_load": 0, "queued_bytes": 0}

    def cpu_load(self) -> float:
        self.calls["cpu_load"] += 1
        return self._give(self.load)

    def queued_bytes(self) -> float:
        self.calls["queued_bytes"] += 1
        return self._give(self.queued)

    def _give(self, value: float | Exception) -> float:
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sources() -> Sources:
    return Sources()


@pytest.fixture
def limiter(clock: FakeClock, sources: Sources) -> RateLimit:
    return RateLimit(
        FakeCluster(),
        clock=clock,
        cpu_load=sources.cpu_load,
        queued_bytes=sources.queued_bytes,
    )


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ratelimit-load"]


def test_sample_without_network_pipe_reads_no_socket(
    limiter: RateLimit, sources: Sources, clock: FakeClock
) -> None:
    limiter.check("calls", 1, TAILDROP)
    limiter.check("calls", 1, FEEDBACK)
    limiter.sample()
    assert sources.calls == {"cpu_load": 1, "queued_bytes": 0}
    limiter.check("calls", 1, NETWORK)
    for _ in range(3):
        limiter.sample()
    assert sources.calls == {"cpu_load": 1, "queued_bytes": 3}
    limiter.check("calls", 1, TAILDROP)
    clock.advance(10)
    limiter.sample()
    assert sources.calls == {"cpu_load": 2, "queued_bytes": 3}


def test_check_reads_no_source(limiter: RateLimit, sources: Sources) -> None:
    limiter.check("calls", 1, FEEDBACK)
    limiter.check("others", 1, NETWORK)
    assert sources.calls == {"cpu_load": 0, "queued_bytes": 0}


def fail(sources: Sources, fault: Exception | float) -> None:
    sources.load = sources.queued = fault


@pytest.mark.parametrize(
    "failure",
    [
        (OSError("no /proc here"), "no /proc here"),
        (KeyError(), "KeyError"),
        (-1, "-1 is not from 0 to"),
        (float("nan"), "nan is not from 0 to"),
    ],
)
def test_source_failing_refuses_nothing_logged_once(
    limiter: RateLimit,
    sources: Sources,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    failure: tuple[Exception | float, str],
) -> None:
    fault, words = failure

    def passes() -> list[int]:
        return [
            sum(limiter.check(name, 50, algorithm) for _ in range(100))
            for name, algorithm in (("calls", FEEDBACK), ("others", NETWORK))
        ]

    def measure() -> None:
        clock.advance(10)
        limiter.sample()

    passes()
    caplog.clear()
    caplog.set_level(logging.INFO)
    sources.load, sources.queued = 1.0, 51
    measure()
    assert passes() == [87, 0]
    fail(sources, fault)
    measure()
    measure()
    assert passes() == [100, 100]
    assert sorted(record.levelname for record in caplog.records) == ["WARNING", "WARNING"]
    cpu, queued = sorted(caplog.messages)
    assert cpu.startswith("ratelimit: measuring CPU load failed: ")
    assert cpu.endswith("; FEEDBACK refuses nothing until it succeeds")
    assert queued.startswith("ratelimit: measuring unread bytes failed: ")
    assert queued.endswith("; NETWORK refuses nothing until it succeeds")
    assert words in cpu
    assert words in queued
    caplog.clear()
    sources.load, sources.queued = 0.7, 51
    measure()
    measure()
    assert passes() == [90, 0]
    assert sorted(caplog.messages) == [
        "ratelimit: measuring CPU load resumed",
        "ratelimit: measuring unread bytes resumed",
    ]


def test_cpu_load_above_1_refuses_nothing(limiter: RateLimit, sources: Sources) -> None:
    limiter.check("calls", 50, FEEDBACK)
    sources.load = 70.0
    limiter.sample()
    assert sum(limiter.check("calls", 50, FEEDBACK) for _ in range(100)) == 100


def test_sampler_without_measured_pipe_has_no_thread(limiter: RateLimit) -> None:
    with limiter:
        limiter.check("calls", 1, TAILDROP)
        assert sampler_threads() == []
        limiter.check("calls", 1, NETWORK)
        limiter.check("others", 1, FEEDBACK)
        assert len(sampler_threads()) == 1
    assert sampler_threads() == []


@pytest.mark.parametrize("algorithm", [FEEDBACK, NETWORK])
def test_sampler_start_measures_existing_pipes(
    limiter: RateLimit, sources: Sources, algorithm: int
) -> None:
    sources.load, sources.queued = 1.0, 100
    assert sum(limiter.check("calls", 50, algorithm) for _ in range(100)) == 100
    with limiter:
        limiter.start()
        assert len(sampler_threads()) == 1
        wait_until(lambda: not limiter.check("calls", 50, algorithm), message="a refusal")


def test_sampler_thread_measures_repeatedly(sources: Sources) -> None:
    limiter = RateLimit(
        FakeCluster(), timer_interval=0.01, cpu_load=sources.cpu_load, queued_bytes=lambda: 0
    )
    with limiter:
        limiter.check("calls", 50, FEEDBACK)
        wait_until(lambda: sources.calls["cpu_load"] >= 20, message="twenty CPU readings")


def test_sampler_stop_forgets_measurements(limiter: RateLimit, sources: Sources) -> None:
    sources.load, sources.queued = 1.0, 100
    for name, algorithm in (("calls", FEEDBACK), ("others", NETWORK)):
        limiter.check(name, 50, algorithm)
        limiter.sample()
        limiter.sample()
    limiter.stop()
    assert limiter.check("others", 50, NETWORK)
    assert sum(limiter.check("calls", 50, FEEDBACK) for _ in range(100)) == 100
    sources.load = 0.7
    limiter.sample()
    assert sum(limiter.check("calls", 50, FEEDBACK) for _ in range(100)) == 95
    assert sampler_threads() == []


def test_sampler_not_started_warns_once(
    limiter: RateLimit, caplog: pytest.LogCaptureFixture
) -> None:
    limiter.check("fine", 50, TAILDROP)
    assert caplog.messages == []
    limiter.check("calls", 50, NETWORK)
    limiter.check("others", 50, FEEDBACK)
    assert caplog.messages == [
        "ratelimit pipe 'calls': refuses nothing yet: NETWORK needs measurements; call start()"
    ]
    assert sampler_threads() == []


def test_sample_in_two_threads_runs_one_after_other(limiter: RateLimit, sources: Sources) -> None:
    """One sample of the timer, one of a caller: the controller steps once in an interval."""
    limiter.check("calls", 50, FEEDBACK)
    with limiter._sampler._sampling:
        thread = threading.Thread(target=limiter.sample, daemon=True)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert sources.calls["cpu_load"] == 0
    thread.join(EVENTUALLY_S)
    assert sources.calls["cpu_load"] == 1
