"""What a prober knows of its own host and of the other hosts."""

from __future__ import annotations

from clusterer.prober.viewpoint import Viewpoint
from clusterer.store import ClusterView
from tests.support.cluster import CLUSTER, node

ON_ONE_HOST = {"192.0.2.1", "192.0.2.2"}
"""The addresses of nodes 1 and 2."""

ON_ANOTHER = {"192.0.2.3"}


def viewpoint(addresses: set[str]) -> Viewpoint:
    """Return the viewpoint of the host that has these addresses."""
    made = Viewpoint(addresses.__contains__)
    rows = [node(i, host=f"192.0.2.{i}") for i in (1, 2, 3)]
    made.update({CLUSTER: ClusterView.of(CLUSTER, 1, rows)})
    return made


def test_viewpoint_own_nodes_are_those_with_an_own_address() -> None:
    one, other = viewpoint(ON_ONE_HOST), viewpoint(ON_ANOTHER)
    assert one.machine_ids == {1, 2}
    assert other.machine_ids == {3}
    assert (one.prober, other.prober) == (1, 3)
    assert one.sources == {CLUSTER: "192.0.2.1"}
    assert other.sources == {CLUSTER: "192.0.2.3"}


def test_viewpoint_probers_agree_which_are_elsewhere() -> None:
    """Otherwise no prober pings node 2 in the rounds that each leaves to another one."""
    one, other = viewpoint(ON_ONE_HOST), viewpoint(ON_ANOTHER)
    for machine_id in (1, 2, 3):
        target = one.views[CLUSTER].nodes[machine_id]
        found = [prober for prober in (1, 3) if one.elsewhere(prober, target)]
        assert found == [prober for prober in (1, 3) if other.elsewhere(prober, target)]
        assert found


def test_viewpoint_source_is_of_the_family_of_the_node() -> None:
    """A socket of IPv6 cannot be bound to an address of IPv4: such a check finds nothing."""
    own = {"192.0.2.1", "2001:db8::1"}
    made = Viewpoint(own.__contains__)
    hosts = ["192.0.2.1", "2001:db8::1", "192.0.2.3", "2001:db8::3"]
    rows = [node(i, host=host) for i, host in enumerate(hosts, 1)]
    made.update({CLUSTER: ClusterView.of(CLUSTER, 1, rows)})
    assert [made.source(row) for row in rows] == [*hosts[:2], *hosts[:2]]
    made.update({CLUSTER: ClusterView.of(CLUSTER, 2, rows[:1])})
    assert made.source(rows[3]) == "192.0.2.1"
