"""What the doctor says of paths that are not up; no server runs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from clusterer.membership import State
from clusterer.membership.paths import Path
from clusterer.services.doctor.finding import Level
from clusterer.services.doctor.paths import judged
from clusterer.services.status.paths import BrokenPath, reach
from clusterer.store import ClusterView
from tests.support.cluster import CLUSTER, node

TIMED_OUT = "cannot connect: timed out"
REFUSED = "cannot connect: Connection refused"


def host(number: int) -> str:
    return f"192.0.2.{number}"


def view(count: int, *, not_up: Iterable[int] = (), down: Iterable[int] = ()) -> ClusterView:
    """Return a cluster with a node per host."""
    states = dict.fromkeys(not_up, State.PROBING) | dict.fromkeys(down, State.DOWN)
    nodes = (node(i, host=host(i), state=states.get(i, State.UP)) for i in range(1, count + 1))
    return ClusterView.of(CLUSTER, 1, nodes)


def broken(seen: ClusterView, *pairs: tuple[int, int], reason: str = TIMED_OUT) -> list[BrokenPath]:
    path = Path(State.PROBING, 1, 1, 10**15, 0, reason)
    return [BrokenPath(sender, seen.nodes[to], path) for sender, to in pairs]


def told(
    seen: ClusterView, found: list[BrokenPath], alive: Iterable[int], **reasons: str
) -> list[str]:
    """Return the findings as words; each has advice. ``reasons``: by node, ``node3`` say."""
    by_id = {int(name.removeprefix("node")): reason for name, reason in reasons.items()}
    findings = list(judged(seen, found, {host(i) for i in alive}, by_id))
    assert all(finding.advice for finding in findings)
    assert {finding.level for finding in findings} <= {Level.WARN, Level.ERROR}
    return [finding.text for finding in findings]


def test_doctor_paths_all_up_is_no_finding() -> None:
    assert told(view(3), [], (1, 2, 3)) == []


def test_doctor_paths_link_of_two_hosts_is_one_finding() -> None:
    seen = view(3)
    (text,) = told(seen, broken(seen, (1, 2), (2, 1)), (1, 2, 3))
    assert text.startswith("the link between hosts 192.0.2.1 and 192.0.2.2 is broken: 1 does not")
    assert "2 does not reach node 1" in text


def test_doctor_paths_refused_for_one_sender_is_link() -> None:
    """A firewall that rejects, say: others reach the node."""
    seen = view(3)
    (text,) = told(seen, broken(seen, (1, 2), reason=REFUSED), (1, 2, 3))
    assert text.startswith("the link between hosts 192.0.2.1 and 192.0.2.2 is broken")


def test_doctor_paths_one_direction_is_link() -> None:
    seen = view(3)
    (text,) = told(seen, broken(seen, (1, 2)), (1, 2, 3))
    assert text.startswith("the link between hosts 192.0.2.1 and 192.0.2.2 is broken")


def test_doctor_paths_host_that_reaches_none_is_cut_off() -> None:
    seen = view(3, not_up=[3])
    (text,) = told(seen, broken(seen, (1, 3), (2, 3), (3, 1), (3, 2)), (1, 2, 3))
    assert text.startswith("host 192.0.2.3 (node 3) reaches none of the 2 other hosts")
    assert "its worker is alive: 3 does not reach node 1" in text


def test_doctor_paths_host_that_sends_in_vain_is_cut_off() -> None:
    """The others reach it: packets go one way only."""
    seen = view(4)
    (text,) = told(seen, broken(seen, (3, 1), (3, 2), (3, 4)), (1, 2, 3, 4))
    assert text.startswith("host 192.0.2.3 (node 3) reaches none of the 3 other hosts")


def test_doctor_paths_silent_host_none_reaches_is_cut_off() -> None:
    seen = view(3, not_up=[3])
    (text,) = told(seen, broken(seen, (1, 3), (2, 3)), (1, 2, 3))
    assert text.startswith("none of the 2 other hosts reaches host 192.0.2.3 (node 3)")


def test_doctor_paths_two_nodes_of_cut_off_host_are_one_finding() -> None:
    nodes = [node(i, host=host(i)) for i in (1, 2)]
    nodes += [node(i, host=host(3), state=State.PROBING) for i in (3, 4)]
    seen = ClusterView.of(CLUSTER, 1, nodes)
    pairs = [(i, j) for i in (1, 2) for j in (3, 4)]
    (text,) = told(seen, broken(seen, *pairs, (3, 1), (3, 2)), (1, 2, 3))
    assert text.startswith("host 192.0.2.3 (nodes 3, 4) reaches none of the 2 other hosts")


def test_doctor_paths_refused_is_dead_node() -> None:
    seen = view(3, not_up=[3])
    (text,) = told(seen, broken(seen, (1, 3), (2, 3), reason=REFUSED), (1, 2, 3))
    assert text == f"cluster 1 node 3 (bin:192.0.2.3:1) is dead: {REFUSED}"


def test_doctor_paths_refused_ping_without_sender_is_dead_node() -> None:
    (text,) = told(view(3, not_up=[3]), [], (1, 2, 3), node3=f"ping failed: {REFUSED}")
    assert text == f"cluster 1 node 3 (bin:192.0.2.3:1) is dead: ping failed: {REFUSED}"


def test_doctor_paths_silent_host_without_sender_is_cut_off() -> None:
    (text,) = told(view(3, not_up=[3]), [], (1, 2, 3), node3="ping failed: no answer within 2 s")
    assert text == (
        "none of the 2 other hosts reaches host 192.0.2.3 (node 3), though its worker is alive"
    )


def test_doctor_paths_host_without_worker_is_dead() -> None:
    seen = view(3, not_up=[3])
    (text,) = told(seen, broken(seen, (1, 3)), (1, 2))
    assert text == "cluster 1 node 3 (bin:192.0.2.3:1) is dead: none of 2 hosts reaches the node"


@pytest.mark.parametrize(("alive", "said"), [((1,), "only one other host"), ((), "no other host")])
def test_doctor_paths_without_third_host_is_not_known(alive: tuple[int, ...], said: str) -> None:
    seen = view(2, not_up=[2])
    (text,) = told(seen, broken(seen, (1, 2)), alive)
    assert text.endswith(f"not known whether the node is dead or a link is broken: {said} can say")


def test_doctor_paths_two_live_hosts_apart_is_link() -> None:
    seen = view(2, not_up=[1, 2])
    (text,) = told(seen, broken(seen, (1, 2), (2, 1)), (1, 2))
    assert text.startswith("the link between hosts 192.0.2.1 and 192.0.2.2 is broken")


def test_doctor_paths_dead_nodes_cut_no_sender_off() -> None:
    """The host that finds all others dead is well."""
    seen = view(3, not_up=[2, 3])
    texts = told(seen, broken(seen, (1, 2), (1, 3)), (1,))
    assert len(texts) == 2
    assert all("not known" in text for text in texts)


def test_doctor_paths_node_an_operator_took_down_is_no_finding() -> None:
    assert told(view(3, down=[3]), [], (1, 2)) == []


def test_doctor_paths_nodes_of_one_host_have_no_link() -> None:
    """A process that does not read, say."""
    nodes = [node(1, host=host(1)), node(2, host=host(1), state=State.PROBING)]
    seen = ClusterView.of(CLUSTER, 1, nodes)
    (text,) = told(seen, broken(seen, (1, 2)), (1,))
    assert "not known" in text


def test_doctor_paths_of_removed_sender_are_named() -> None:
    seen = view(2)
    (text,) = told(seen, broken(seen, (9, 2)), (1, 2))
    assert "9 does not reach node 2" in text


# -- how many senders reach a node -----------------------------------------------------------------


def senders_of(seen: ClusterView, senders: dict[int, set[int]], found: list[BrokenPath]) -> object:
    return {i: tuple(each) for i, each in reach(seen, senders, found).items()}


def test_reach_counts_live_senders() -> None:
    seen = view(4, not_up=[4])
    assert senders_of(seen, {1: {2, 3, 4}, 2: {1}}, []) == {1: (2, 2), 2: (1, 1)}
    found = broken(seen, (2, 1), (3, 4))
    assert senders_of(seen, {1: {2, 3, 4}}, found) == {1: (1, 2), 4: (0, 1)}


def test_reach_of_own_node_and_node_down_is_nothing() -> None:
    seen: ClusterView = view(3, down=[3])
    assert senders_of(seen, {1: {1}, 3: {1, 2}}, []) == {}
