"""Live views: what two snapshots say, and how that is written. No server runs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.text import Text

from clusterer.cli import output
from clusterer.cli.live import words
from clusterer.cli.live.keyboard import keys_in
from clusterer.cli.live.top import page
from clusterer.cli.text import age, moment, rate, stamp
from clusterer.membership import Condition, Node, State
from clusterer.membership.paths import Path
from clusterer.services.live import Row, Snapshot, changes, rows
from clusterer.services.live.node_rows import BEHIND_S
from clusterer.services.status import sums
from clusterer.services.status.paths import BrokenPath
from clusterer.services.status.traffic import Traffic
from clusterer.store import ClusterKey, ClusterView
from clusterer.store.last_seen import LastSeenTimes
from clusterer.store.watches import Watch
from tests.support.seeding import make_node

NOW = 1_000_000.0
NOW_MS = int(NOW * 1000)


def flow(sender: int, machine_id: int, sent: int = 0, **changed: object) -> Traffic:
    values: dict[str, object] = {
        "sender": sender,
        "cluster_id": 1,
        "protocol": "bin",
        "machine_id": machine_id,
        "sent": sent,
        "failed": 0,
        "skipped": 0,
        "lost": 0,
        "backlog": 0,
        "oldest_s": None,
        "last_delivered": "",
    }
    return Traffic(**(values | changed))  # type: ignore[arg-type]  # fields of Traffic


def seen_by(
    receiver: int,
    ages_s: dict[int, float],
    *,
    module: str = "ratelimit",
    muted_s: dict[int, float] | None = None,
) -> LastSeenTimes:
    return LastSeenTimes(
        Watch(receiver, module, module, 1, 10_000),
        {machine_id: NOW_MS - int(ago * 1000) for machine_id, ago in ages_s.items()},
        {machine_id: NOW_MS + int(left * 1000) for machine_id, left in (muted_s or {}).items()},
    )


def snapshot(
    *traffic: Traffic,
    now: float = NOW,
    nodes: tuple[Node, ...] = (make_node(1), make_node(2), make_node(3)),
    last_seen: tuple[LastSeenTimes, ...] = (),
    paths: tuple[BrokenPath, ...] = (),
) -> Snapshot:
    ids = {node.cluster_id for node in nodes}
    views = [
        ClusterView.of(ClusterKey(i, "bin"), 0, [n for n in nodes if n.cluster_id == i])
        for i in sorted(ids)
    ]
    summed = sums.of_pairs(traffic, views, paths)
    return Snapshot(now, tuple(views), last_seen, paths, sums=summed)


def row(machine_id: int, before: Snapshot | None, after: Snapshot) -> Row:
    (cluster,) = rows(before, after)
    (found,) = (item for item in cluster.rows if item.node.machine_id == machine_id)
    return found


# -- rows ------------------------------------------------------------------------------------------


def test_live_rates_are_differences_by_redis_time() -> None:
    before = snapshot(flow(1, 2, 100), flow(1, 3, 100), flow(3, 2, 5), now=NOW - 2)
    after = snapshot(flow(1, 2, 120), flow(1, 3, 110), flow(3, 2, 5))
    first, second, third = (row(machine_id, before, after) for machine_id in (1, 2, 3))
    assert (first.in_per_s, first.out_per_s) == (None, 15.0)
    assert (second.in_per_s, second.out_per_s) == (10.0, None)
    assert (third.in_per_s, third.out_per_s) == (5.0, 0.0)


@pytest.mark.parametrize("before", [None, snapshot(flow(1, 2, 5))], ids=["first", "same moment"])
def test_live_without_time_between_has_no_rates(before: Snapshot | None) -> None:
    assert row(2, before, snapshot(flow(1, 2, 9))).in_per_s is None


def test_live_counter_restarted_gives_no_negative_rate() -> None:
    before = snapshot(flow(1, 2, 1000), now=NOW - 1)
    assert row(2, before, snapshot(flow(1, 2, 7))).in_per_s == 0.0


def test_live_new_sender_counts_from_0() -> None:
    before = snapshot(now=NOW - 1)
    assert row(2, before, snapshot(flow(1, 2, 7))).in_per_s == 7.0


def test_live_node_in_two_clusters_has_own_traffic() -> None:
    nodes = (make_node(1), make_node(2), make_node(2, cluster_id=7))
    before = snapshot(flow(1, 2, 0), now=NOW - 1, nodes=nodes)
    one, seven = rows(before, snapshot(flow(1, 2, 9, backlog=4), nodes=nodes))
    assert [(r.in_per_s, r.backlog) for r in one.rows] == [(None, 0), (9.0, 4)]
    assert [(r.in_per_s, r.backlog) for r in seven.rows] == [(None, 0)]


def test_live_backlog_is_sum_or_unknown() -> None:
    assert row(2, None, snapshot(flow(1, 2, backlog=3), flow(3, 2, backlog=4))).backlog == 7
    assert row(2, None, snapshot(flow(1, 2, backlog=3), flow(3, 2, backlog=None))).backlog is None


def test_live_only_disabled_node_has_time_to_return() -> None:
    nodes = (
        make_node(1),
        make_node(2, state=State.PROBING, no_tries=3, last_attempt=int(NOW) - 10, duration=40),
        make_node(3, state=State.PROBING, no_tries=1, last_attempt=int(NOW)),
    )
    (cluster,) = rows(None, snapshot(nodes=nodes))
    assert [item.enabled_in_s for item in cluster.rows] == [None, 30, None]
    assert cluster.count(Condition.DISABLED) == 1


def test_live_last_seen_is_of_the_latest_instance() -> None:
    found = row(3, None, snapshot(last_seen=(seen_by(1, {2: 9, 3: 8.0}), seen_by(2, {3: 1.5}))))
    assert found.by_module()["ratelimit"].age_s == 1.5
    assert [item.receiver for item in found.last_seen] == [1, 2]


def test_live_instance_dropping_packets_comes_first() -> None:
    last_seen = (seen_by(1, {3: 0.1}), seen_by(2, {}, muted_s={3: 12}))
    found = row(3, None, snapshot(last_seen=last_seen)).by_module()["ratelimit"]
    assert (found.receiver, found.muted_s) == (2, 12.0)


# -- changes ---------------------------------------------------------------------------------------


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    return list(changes(row(2, None, before), row(2, None, after)))


def test_live_packets_in_transit_are_no_change() -> None:
    assert changed(snapshot(flow(1, 2)), snapshot(flow(1, 2, 50, backlog=100))) == []


def test_live_backlog_is_reported_at_start_and_end() -> None:
    small, large = snapshot(flow(1, 2, backlog=3)), snapshot(flow(1, 2, backlog=101))
    assert changed(small, large) == ["is behind: backlog 101"]
    assert changed(large, small) == ["is not behind any more: backlog 3"]
    assert changed(large, large) == []


def test_live_second_of_traffic_is_no_backlog() -> None:
    after = snapshot(flow(1, 2, 5000, backlog=4000))
    before = snapshot(flow(1, 2), now=NOW - 1)
    assert list(changes(row(2, None, before), row(2, before, after))) == []


def test_live_losses_and_mutes_are_reported() -> None:
    before = snapshot(flow(1, 2, lost=1), last_seen=(seen_by(1, {2: 1}),))
    after = snapshot(flow(1, 2, lost=4), last_seen=(seen_by(1, {}, muted_s={2: 20}),))
    lost, muted = changed(before, after)
    assert lost.startswith("lost 3 packets")
    assert muted == "muted by instance 1 for ratelimit: the instance drops packets for 20 s"
    assert changed(after, replace(before, sums=after.sums)) == [
        "no longer muted by instance 1 for ratelimit"
    ]


def test_live_node_added_or_removed_is_reported() -> None:
    known = row(2, None, snapshot())
    assert [*changes(None, known), *changes(known, None)] == []


# -- what is written -------------------------------------------------------------------------------


def text_of(after: Snapshot, width: int = 80, *, cut: bool = True) -> list[str]:
    found = page(replace(after, now=after.now - 1), after, width, 1, cut=cut)
    lines = [*found.head, *found.body, *found.foot]
    return [line.plain for line in lines]


def test_live_longest_values_fit_80_columns() -> None:
    long = make_node(
        2**31 - 1,
        url="bin:[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
        state=State.PROBING,
        no_tries=10,
        failed_attempts=10,
        last_attempt=int(NOW),
        duration=99_999,
    )
    traffic = flow(1, 2**31 - 1, 10**9, backlog=10**6)
    last_seen = tuple(
        seen_by(1, {2**31 - 1: 3}, module=name) for name in ("dialog", "ratelimit", "ul")
    )
    after = snapshot(traffic, nodes=(make_node(1), long), last_seen=last_seen)
    lines = text_of(after)
    assert max(map(len, lines)) <= 80
    assert any("     dialog 3 s, ratelimit 3 s, ul 3 s" in line for line in lines)
    uncut = "\n".join(text_of(after, cut=False))
    assert "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535" in uncut


def test_live_state_is_word_in_colour() -> None:
    nodes = (make_node(1), make_node(2, state=State.DOWN))
    found = page(snapshot(), snapshot(nodes=nodes), 80, 0)
    assert found.head[0].plain == "2 nodes: 1 up, 1 down"
    styles = {
        line.plain[span.start : span.end]: span.style for line in found.body for span in line.spans
    }
    assert (styles["up"], styles["down"]) == ("green", "red")


def test_live_module_is_column_if_it_fits() -> None:
    lines = text_of(snapshot(last_seen=(seen_by(1, {2: 1.2, 3: 70}),)))
    heading, *_ = (line for line in lines if "Backlog" in line)
    assert heading.endswith("ratelimit")
    by_node = {
        m[1]: m[2] for m in (re.match(r" +\*?(\d) .* {2,}(-|\d+ \w+)$", x) for x in lines) if m
    }
    assert (by_node["1"], by_node["2"], by_node["3"]) == ("-", "1 s", "1 min")


def test_live_own_row_has_star() -> None:
    assert any(line.startswith("  *1 ") for line in text_of(snapshot()))


def test_live_failing_nodes_come_first_if_not_all_fit() -> None:
    nodes = (
        *(make_node(n) for n in (1, 2, 3, 4)),
        make_node(5, state=State.DOWN),
        *(make_node(n, cluster_id=2) for n in (1, 2)),
        make_node(3, state=State.PROBING, cluster_id=2),
    )
    after = snapshot(
        flow(1, 3, backlog=9, oldest_s=BEHIND_S),
        flow(1, 4, backlog=9, oldest_s=BEHIND_S - 1),
        nodes=nodes,
        last_seen=(seen_by(1, {1: 0, 3: 0, 4: 0}, muted_s={2: 9}),),
    )

    def order(height: int | None) -> list[tuple[str, ...]]:
        body = page(after, after, 80, 0, height=height).body
        return [tuple(re.split(r"[ :,]+", line.plain.strip())[:2]) for line in body]

    natural = [("Cluster", "1"), *((str(n), f"127.0.0.{n}") for n in range(1, 6))]
    natural += [("Cluster", "2"), *((str(n), f"127.0.0.{n}") for n in (1, 2, 3))]
    assert order(None) == order(24) == natural
    assert [first for first, _ in order(12)] == [
        *("Cluster", "2", "3", "5", "Cluster", "3"),
        *("Cluster", "1", "4", "Cluster", "1", "2"),
    ]


def test_live_unchanged_states_are_one_line() -> None:
    assert not any("not updated" in line for line in text_of(snapshot()))
    lines = text_of(replace(snapshot(), stalled="no maintenance worker runs"))
    (line,) = (line for line in lines if "not updated" in line)
    assert line == "States are not updated: no maintenance worker runs. See `clusterer doctor`."


def test_live_time_of_other_day_has_date() -> None:
    assert moment(NOW, NOW) == stamp(NOW)[11:]
    assert moment(NOW - 86_400, NOW) == stamp(NOW - 86_400)


def test_live_without_clusters_gives_advice() -> None:
    assert any("clusterer reload" in line for line in text_of(Snapshot(NOW)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.0"), (9.96, "10.0"), (99.96, "100"), (99999, "99999"), (1e6, "1000k")],
)
def test_live_rates_have_at_most_six_characters(value: float | None, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (2e5, "2 d")]
)
def test_live_ages_are_rounded_down(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_live_cell_too_long_ends_in_ellipsis() -> None:
    assert words.line([Text("abcdef"), Text("x")], [4, 3], [False, True]).plain == "abc…   x"


def test_live_keys_are_told_apart() -> None:
    assert keys_in(b"q\x1b[A\x1bOB\x1b[5~k\n") == [
        b"q",
        b"\x1b[A",
        b"\x1bOB",
        b"\x1b[5~",
        b"k",
        b"\n",
    ]


def test_live_backlog_shows_age_beyond_transit() -> None:
    fresh, old = flow(1, 2, backlog=3, oldest_s=0.9), flow(1, 3, backlog=129, oldest_s=75.0)
    shown = "\n".join(
        line.plain for line in page(snapshot(fresh, old), snapshot(fresh, old), 80, 1).body
    )
    assert re.search(r" 2 127.* 3 +\S+ +\S+", shown)
    assert "0 s" not in shown
    assert " 129, 1 min " in shown


# -- paths -----------------------------------------------------------------------------------------


def with_paths(*pairs: tuple[int, int], nodes: tuple[Node, ...] | None = None) -> Snapshot:
    """Return a snapshot in which senders do not reach nodes; all have sent to node 2."""
    found = nodes or (make_node(1), make_node(2), make_node(3))
    path = Path(State.PROBING, 1, NOW_MS - 4000, NOW_MS + 9000, 0, "send failed: timed out")
    broken = [BrokenPath(s, n, path) for s, to in pairs for n in found if n.machine_id == to]
    return snapshot(flow(1, 2), flow(3, 2), nodes=found, paths=tuple(broken))


def test_live_broken_path_is_trouble_of_up_node() -> None:
    found = row(2, None, with_paths((1, 2)))
    assert found.troubled
    assert found.partly_reached
    assert found.reach == (1, 2)
    assert not row(1, None, with_paths((1, 2))).troubled


def test_top_shows_how_many_senders_reach_node() -> None:
    shown = with_paths((1, 2))
    found = page(shown, shown, 100, 0)
    assert any(re.search(r" 2 127.0.0.2:5555 +up 1/2 +0/3", line.plain) for line in found.body)
    assert any("2 of 3 senders reach" in line.plain for line in found.foot)
    assert not any("senders reach" in line.plain for line in page(shown, with_paths(), 100, 0).foot)


def test_live_changes_name_paths_while_node_is_up() -> None:
    well, broken = row(2, None, with_paths()), row(2, None, with_paths((1, 2)))
    assert list(changes(well, broken)) == [
        "sender 1 does not reach the node: send failed: timed out"
    ]
    assert list(changes(broken, well)) == ["sender 1 reaches the node again"]
    assert list(changes(broken, broken)) == []


def test_live_changes_of_fallen_node_name_no_path() -> None:
    nodes = (make_node(1), make_node(2, state=State.PROBING, no_tries=1), make_node(3))
    fallen = row(2, None, with_paths((1, 2), nodes=nodes))
    assert list(changes(row(2, None, with_paths()), fallen)) == []
    assert not fallen.partly_reached


def test_traffic_cells_from_ten_million_are_in_millions() -> None:
    item = flow(1, 2, 10**7, failed=10**7 - 1, lost=123_456_789, backlog=10**8, oldest_s=2.0)
    backlog, _, *counters, _ = output.traffic_cells(item, NOW)
    assert (backlog, counters) == ("100M", ["10M", "9999999", "0", "123M"])
