"""What the doctor says of links in 3.x clusters that are not up; no server runs."""

from __future__ import annotations

from typing import Any

import pytest

from clusterer.membership import State
from clusterer.services.doctor.finding import Level
from clusterer.services.doctor.links import JOINING_S, silent
from clusterer.services.status.links import SeenLink
from clusterer.store.links import LinkRecord
from tests.support.seeding import make_node

NOW_S = 1_000_000.0
LONG_AGO = NOW_S - JOINING_S - 1


def told(link: LinkRecord, **of_node: Any) -> list[str]:
    """Return the findings about instance 23's link to node 21 of cluster 7."""
    nodes = {21: make_node(21, cluster_id=7, **of_node), 23: make_node(23, cluster_id=7)}
    findings = list(silent([SeenLink(7, 23, 21, link)], {7: nodes}, NOW_S))
    assert {finding.level for finding in findings} <= {Level.WARN}
    return [f"{finding.text} -> {finding.advice}" for finding in findings]


@pytest.mark.parametrize("state", ["down", "probe"])
def test_doctor_links_silent_node_is_warned_of(state: str) -> None:
    (text,) = told(LinkRecord(state, LONG_AGO))
    assert "cluster 7: instance 23 gets no answer to its pings from node 21" in text
    assert "-> the table of node 21 must have node 23 with the address of bin:" in text


def test_doctor_links_names_the_way_by_another_node() -> None:
    (text,) = told(LinkRecord("down", LONG_AGO, next_hop=22))
    assert "and which node 22 reaches" in text


@pytest.mark.parametrize(
    ("link", "state"),
    [
        (LinkRecord("up", LONG_AGO), State.UP),
        (LinkRecord("probe", NOW_S - JOINING_S + 1), State.UP),
        (LinkRecord("down", LONG_AGO), State.DOWN),
        (LinkRecord("down", LONG_AGO), State.PROBING),
    ],
    ids=["up", "joining", "taken down", "dead node"],
)
def test_doctor_links_no_finding(link: LinkRecord, state: State) -> None:
    assert told(link, state=state) == []


def test_doctor_links_of_removed_node_is_no_finding() -> None:
    link = LinkRecord("down", LONG_AGO)
    assert list(silent([SeenLink(7, 23, 21, link)], {7: {}}, NOW_S)) == []
