"""``clusterer tail`` and ``clusterer replay``: show, record and send packets of nodes again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clusterer.cli.options import (
    FILE,
    ID,
    LINES,
    Number,
    cluster_option,
    node_option,
    parsed_by,
    with_settings,
)
from clusterer.errors import InvalidArgument, SettingsError
from clusterer.ids import PROTO_BIN
from clusterer.runtime.logs import plain
from clusterer.settings import Settings

if TYPE_CHECKING:
    from clusterer.provisioning.address import Address
    from clusterer.services.admin import replay as service
    from clusterer.services.admin.packets import PacketFilter
    from clusterer.services.admin.recording import Record, Recorder, Recording
    from clusterer.services.admin.tail import Arrival


@click.command()
@click.option(
    "--module", "modules", metavar="NAME", multiple=True, help="Show packets of this module only."
)
@node_option("--node", "nodes", many=True, about="Show packets of this sender only.")
@LINES
@click.option(
    "--write",
    metavar="FILE",
    type=FILE,
    help="New file in which to record, for `replay`.",
)
@click.option("--count", metavar="N", type=Number(1), help="Number of packets after which to end.")
@with_settings()
def tail(
    settings: Settings,
    *,
    modules: tuple[str, ...],
    nodes: tuple[int, ...],
    as_lines: bool,
    write: Path | None,
    count: int | None,
) -> None:
    """Show the packets that an instance receives, until Ctrl-C.

    Each packet is one line: time, source node, module, message, fields. The command runs beside
    the instance, on any host with the same Redis; --server-id chooses among several instances.
    --module and --node may be given more than once.
    """
    from clusterer.runtime.stop import stop_on_signals
    from clusterer.services.admin.packets import PacketFilter
    from clusterer.services.admin.recording import Record, Recorder
    from clusterer.services.admin.tail import Tail, receiver_of
    from clusterer.store.captures import CaptureStore

    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(when_unread=True))
        store = stack.enter_context(closing(CaptureStore(settings)))
        following = Tail(store, receiver_of(store, settings.server_id))
        recorder = stack.enter_context(Recorder(write)) if write else None
        packets, left = PacketFilter(modules, nodes), count
        for arrivals in following.arrivals(stop):
            wanted = _wanted(arrivals, packets)[:left]
            _show(wanted, recorder, as_lines=as_lines)
            if left is not None:
                left -= sum(isinstance(arrival, Record) for arrival in wanted)
                if left <= 0:
                    return


def _wanted(arrivals: Iterable[Arrival], packets: PacketFilter) -> list[Arrival]:
    from clusterer.services.admin.tail import Lost

    return [each for each in arrivals if isinstance(each, Lost) or each in packets]


def _show(arrivals: Iterable[Arrival], recorder: Recorder | None, *, as_lines: bool) -> None:
    from clusterer.services.admin.packets import as_json
    from clusterer.services.admin.tail import Lost

    for arrival in arrivals:
        if isinstance(arrival, Lost):
            lost = {"lost": arrival.count}
            text = f"... {arrival.count} packets are missing here: too many at once"
            click.echo(json.dumps(lost) if as_lines else text)
            continue
        if recorder is not None:
            recorder.add(arrival)
        click.echo(json.dumps(as_json(arrival)) if as_lines else as_line(arrival))
    if recorder is not None:
        recorder.flush()


def as_line(record: Record) -> str:
    """Return time, source node, cluster if the packet names it, module, message and fields."""
    from clusterer.services.admin.packets import words

    packet = record.packet
    at = datetime.fromtimestamp(record.time).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - local
    node = "?" if packet.machine_id is None else packet.machine_id
    named = packet.trailer.cluster_id if packet.trailer is not None else None
    cluster = f" of cluster {named}" if named is not None else ""
    line = f"{at} node {node}{cluster} {packet.module} {words(packet)}"
    # Bytes from the network must not steer the terminal.
    return plain(line, instead=".")


def _speed(text: str) -> float | None:
    """Return the factor of the recorded speed; None for "max"."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise InvalidArgument(f"{text!r} is neither a number above 0 nor 'max'")
    return speed


def _address(text: str) -> Address:
    """Return the address that ``host:port``, or a node's URL, names."""
    from clusterer.provisioning.address import parse_address

    try:
        return parse_address(f"{PROTO_BIN}:{text.removeprefix(f'{PROTO_BIN}:')}")
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--to", metavar="HOST:PORT", callback=parsed_by(_address), help="BIN address to send to."
)
@cluster_option("cluster_id of the nodes to send to.")
@click.option(
    "--speed",
    metavar="SPEED",
    default="1",
    callback=parsed_by(_speed),
    help="Factor of the recorded speed, or max.",
)
@click.option("--as", "machine_id", metavar="N", type=ID, help="With --to: sender's machine_id.")
@click.option("--bind", metavar="IP", default="", help="With --to: local address to send from.")
@with_settings()
def replay(
    settings: Settings,
    *,
    file: Path,
    to: Address | None,
    cluster: int | None,
    speed: float | None,
    machine_id: int | None,
    bind: str,
) -> None:
    """Send a recording again, to one node or to a cluster.

    The pauses between packets are those of the recording, divided by --speed. With --to the
    packets are sent as they were recorded. With --cluster the delivery workers send the packets
    as those of this instance, with its machine_id (--server-id). The command leaves out packets
    that crash OpenSIPS 2.2.8, and names the first.
    """
    from clusterer.services.admin import replay as service
    from clusterer.services.admin.recording import Recording

    if (to is None) == (cluster is None):
        raise click.UsageError("Give either --to or --cluster.")
    if cluster is not None and (machine_id or bind):
        raise click.UsageError("Give --as and --bind with --to only.")
    recording = Recording(file)
    if to is not None:
        with service.NodeConnection(to.host, to.port, settings.send_timeout, bind) as node:
            done = _to_node(node, recording, speed, machine_id)
        where = f"{to.host} port {to.port}"
    else:
        done, where = _to_cluster(settings, recording, cluster or 0, speed)
    click.echo(f"Sent {done.packets} packets in {done.seconds:.1f} s to {where}.")
    if done.left_out:
        click.echo(f"Left out {done.left_out}: no machine_id, or a type below 0.")
    if done.harmful:
        click.echo(
            f"Left out {done.harmful}: OpenSIPS 2.2.8 crashes when it receives such a packet. "
            f"The first is {done.first_harmful}."
        )
    if recording.cut:
        click.echo(f"The end of {file} is cut off: its last packet was left out.")


def _to_node(
    node: service.NodeConnection,
    recording: Recording,
    speed: float | None,
    machine_id: int | None,
) -> service.Replayed:
    from clusterer.runtime.stop import stop_on_signals
    from clusterer.services.admin import replay as service

    with stop_on_signals() as stop:
        done = service.run(recording, node.send, stop, speed=speed, machine_id=machine_id)
        node.finish(stop)
    return done


def _to_cluster(
    settings: Settings, recording: Recording, cluster_id: int, speed: float | None
) -> tuple[service.Replayed, str]:
    from clusterer.api import Clusterer
    from clusterer.runtime.stop import stop_on_signals
    from clusterer.services import Context
    from clusterer.services.admin import replay as service
    from clusterer.store import ClusterKey

    if not settings.server_id:
        raise SettingsError("server_id is not set; give it with --server-id or --set server_id=N")
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        context = stack.enter_context(closing(Context(settings)))
        key = ClusterKey(cluster_id, PROTO_BIN)
        service.require_sender(context, key)
        instance = stack.enter_context(Clusterer(settings=settings))
        posts = service.ClusterPosts(instance.post, instance.flush, key, stop)
        done = service.run(
            recording,
            posts.send,
            stop,
            speed=speed,
            machine_id=settings.server_id,
            strict=True,
        )
        posts.finish()
        up = len(instance.get_nodes(cluster_id, PROTO_BIN))
    nodes = "node is" if up == 1 else "nodes are"
    return done, f"cluster {cluster_id}, where {up} other {nodes} up"
