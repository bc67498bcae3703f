"""What must hold on `Hosts` while some links are broken, and once they are mended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from tests.support.hosts import Hosts, Mark, Pair
from tests.support.processes import rounds

GRACE_S = 3.0
"""All paths are open again within ``duration`` and so much."""

SHARE = 0.5
"""Of the ten packets a second of each sender: so many at least are sent over a whole link."""


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
    counts, seconds = hosts.since(mark), (hosts.now_ms() - mark.at_ms) / 1000
    least = SHARE * 10 * seconds
    fewer = {pair: counts[pair] for pair in whole if counts[pair].sent < least}
    assert not fewer, f"fewer than {least:.0f} sent on whole links: {fewer}"


def assert_healed(hosts: Hosts) -> None:
    """Mend all links, and check that no path stays closed and no packet is skipped any more."""
    hosts.network.heal()
    hosts.wait_until_healthy(hosts.duration_s + GRACE_S)
    hosts.wait_until_sending(5.0)


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
