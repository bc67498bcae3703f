"""What commands and instances say while links are broken between real hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import pytest

from clusterer.services import doctor
from clusterer.services.status import node_list
from tests.support.cluster import CLUSTER
from tests.support.hosts import Hosts
from tests.support.processes import wait_until
from tests.support.scale import scaled

pytestmark = [
    pytest.mark.netns,
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.skipif(not scaled(0, 1), reason="only with TEST_SCALE=full"),
]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts({"a": (1,), "b": (2,), "c": (3,)}) as hosts:
        hosts.wait_until_ready()
        yield hosts


def said(hosts: Hosts) -> str:
    """Return what the doctor says of paths."""
    return "; ".join(finding.text for finding in doctor.paths.check(hosts.context))


def says(hosts: Hosts, *words: str) -> bool:
    text = said(hosts)
    return all(word in text for word in words)


def seen_by(hosts: Hosts, sender: int) -> Mapping[int, str]:
    """Return the states of the nodes as a sender sees them."""
    found = node_list.run(hosts.context, sender)
    (view,) = found.clusters
    return {i: found.seen(node).condition.value for i, node in view.nodes.items()}


def test_doctor_tells_link_host_and_node_apart(hosts: Hosts) -> None:
    assert says(hosts, "no sender reports")

    hosts.network.cut("a", "b")
    link = partial(says, hosts, "the link between hosts 10.77.0.1 and 10.77.0.2 is broken")
    wait_until(link, message="the doctor names the link")
    assert seen_by(hosts, 1)[3] == seen_by(hosts, 3)[2] == seen_by(hosts, 3)[1] == "up"
    wait_until(lambda: seen_by(hosts, 1)[2] == "disabled", message="sender 1 sees it disabled")
    (view,) = (found := node_list.run(hosts.context)).clusters
    assert found.reach(view)[2] == (1, 2)
    assert found.reach(view)[3] == (2, 2)
    hosts.network.heal()
    wait_until(partial(says, hosts, "no sender reports"), message="the link works again")

    hosts.network.isolate("c")
    cut_off = partial(says, hosts, "host 10.77.0.3 (node 3)", "though its worker is alive")
    wait_until(cut_off, message="the doctor names the host that is cut off")
    hosts.network.heal()
    wait_until(partial(says, hosts, "no sender reports"), message="the host is back")

    hosts.processes["c", "instance 3"].terminate()
    dead = partial(says, hosts, "cluster 1 node 3 (bin:10.77.0.3", "is dead")
    wait_until(dead, message="the doctor names the dead node")


def test_doctor_two_hosts_apart_is_link_or_not_known() -> None:
    with Hosts({"a": (1,), "b": (2,)}) as hosts:
        hosts.wait_until_ready()
        hosts.network.cut("a", "b")
        link = partial(says, hosts, "the link between hosts 10.77.0.1 and 10.77.0.2 is broken")
        wait_until(link, message="both workers are alive: the link is broken")
        for kind in ("delivery", "instance 2"):
            hosts.processes["b", kind].kill()
        unknown = partial(says, hosts, "node 2", "not known whether the node is dead")
        wait_until(unknown, message="one host alone cannot tell")
        assert hosts.context.nodes.view(CLUSTER).nodes
