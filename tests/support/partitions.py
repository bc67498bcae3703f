"""What must hold on `Hosts` while some links are broken, and once they are mended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress

from tests.support.hosts import Hosts
from tests.support.hosts_view import Mark, Pair
from tests.support.processes import LATE_S, rounds, wait_until

GRACE_S = 3.0
"""All paths are open again within ``duration`` and so much."""

MOST_CHANGES_PER_S = 1.25
"""Of one verdict or path while a link is broken."""

SHARE = 0.5
"""Of the packets that a sender has appended: so many at least are sent over a whole link."""


def watch(seconds: float) -> None:
    """Let the cluster go on for a while."""
    for _ in rounds(seconds, 0.5):
        pass


def assert_nothing_skipped(hosts: Hosts, mark: Mark, whole: Collection[Pair]) -> None:
    """Check that no sender skipped a packet on ``whole`` links since ``mark``."""
    counts = hosts.since(mark)
    skipped = {pair: counts[pair] for pair in whole if counts[pair].skipped}
    assert not skipped, f"skipped on whole links: {skipped}"


def assert_untouched(hosts: Hosts, mark: Mark, whole: Collection[Pair]) -> None:
    """Check that senders sent over ``whole`` links all the time and skipped nothing."""
    assert_nothing_skipped(hosts, mark, whole)
    counts, seconds = hosts.since(mark), hosts.seconds_since(mark)
    least = {pair: max(seconds, SHARE * counts[pair].appended) for pair in whole}
    fewer = {pair: counts[pair] for pair in whole if counts[pair].sent < least[pair]}
    assert not fewer, f"too few sent on whole links in {seconds:.1f} s: {fewer}"


def assert_only_paths_break(hosts: Hosts, mark: Mark, cut: Collection[Pair]) -> None:
    """Check that these paths become probing, then disabled, and that nothing else changes."""
    expected = {pair: ["probing", "disabled"] for pair in cut}
    with suppress(TimeoutError):
        wait_until(lambda: conditions(hosts, mark) == expected)
    assert conditions(hosts, mark) == expected


def assert_only_falls(hosts: Hosts, mark: Mark, machine_ids: Collection[int]) -> None:
    """Check that these verdicts become probing, then disabled, and that no other one falls."""

    def begun() -> dict[int, list[str]]:
        found = conditions(hosts, mark)
        return {machine_id: found[0, machine_id][:2] for machine_id in machine_ids}

    expected = {machine_id: ["probing", "disabled"] for machine_id in machine_ids}
    with suppress(TimeoutError):
        wait_until(lambda: begun() == expected)
    assert begun() == expected
    assert fallen(hosts, mark) == set(machine_ids)


def assert_limited(hosts: Hosts, mark: Mark, most: float = MOST_CHANGES_PER_S) -> None:
    """Check that no verdict and no path changed again and again."""
    limit = most * hosts.seconds_since(mark)
    found = {of: len(changes) for of, changes in conditions(hosts, mark).items()}
    assert {of: count for of, count in found.items() if count > limit} == {}


def assert_healed(hosts: Hosts) -> None:
    """Mend all links; check that all paths are open in time and no packet is skipped any more."""
    mark = hosts.mark()
    hosts.network.heal()
    hosts.wait_until_healthy()
    changes = [*hosts.path_changes(mark), *hosts.verdict_changes(mark)]
    last_ms = max((c.at_ms for c in changes if c.after == "up"), default=mark.at_ms)
    print(f"healed after {last_ms - mark.at_ms} ms")
    assert last_ms - mark.at_ms <= (hosts.duration_s + GRACE_S + LATE_S) * 1000
    hosts.wait_until_sending()


def fallen(hosts: Hosts, mark: Mark) -> set[int]:
    """Return the nodes whose verdict left "up" since ``mark``."""
    return {c.machine_id for c in hosts.verdict_changes(mark) if c.before == "up"}


def broken(hosts: Hosts, mark: Mark) -> set[Pair]:
    """Return the paths that were not up at some time since ``mark``."""
    return {(c.sender, c.machine_id) for c in hosts.path_changes(mark) if c.before == "up"}


def conditions(hosts: Hosts, mark: Mark) -> dict[Pair, list[str]]:
    """Return what each path became since ``mark``, in order; of sender 0: what each verdict did."""
    found = defaultdict(list)
    for change in [*hosts.path_changes(mark), *hosts.verdict_changes(mark)]:
        found[change.sender, change.machine_id].append(change.after)
    return found
