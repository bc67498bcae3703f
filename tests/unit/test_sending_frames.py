"""Packets that may be sent to a cluster: those of its dialect, of modules, for that cluster."""

from __future__ import annotations

import pytest

from clusterer import aio
from clusterer.api import Clusterer
from clusterer.errors import FrameTooLarge, InvalidArgument
from clusterer.sending.frames import frame3_of, frame_of
from clusterer.wire import Packet, PacketBuilder, PacketBuilder3, Trailer
from tests.support.vectors3 import module_frames3, packet_of, sent_to

TWO = PacketBuilder("hello", 1, 5).push_int(3).build()
THREE = PacketBuilder3("hello", 1, 5, cluster_id=2).push_int(3).build()


def test_frame_of_packet_is_its_encoding() -> None:
    assert frame_of(TWO) == TWO.encode()
    assert frame3_of(2, THREE) == THREE.encode()


def test_frame3_of_captured_packets_is_captured_frame() -> None:
    for frame in module_frames3():
        assert frame3_of(1, packet_of(frame)) == frame
        fresh = packet_of(frame)._replace(trailer=Trailer(1, 0))
        assert frame3_of(1, fresh) == sent_to(frame, 0)


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        (TWO, r"hello packet of type 1 is one of OpenSIPS 2\.2, .* packet\(…, cluster_id=2\)$"),
        (THREE._replace(trailer=Trailer(3, 0)), "is for cluster 3, not for cluster 2$"),
        (THREE._replace(trailer=Trailer(None)), "is for cluster None, not for cluster 2$"),
        (THREE._replace(trailer=Trailer(2, 0, 1, 9)), "comes from another cluster$"),
        (
            THREE._replace(module="clusterer-internal"),
            "^clusterer-internal packet of type 1 is one of",
        ),
        (THREE._replace(module="clusterer-extra"), "^clusterer-extra packet of type 1 is one of"),
        (THREE._replace(type=-1), "type -1: negative types are notices"),
        (THREE._replace(machine_id=None), "^machine_id must be an integer "),
        (THREE._replace(module="größe"), "^capability must be 1 to 255 ASCII characters"),
        (b"frame", "only a Packet can be sent"),
    ],
)
def test_frame3_of_other_packets_is_refused(packet: Packet, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        frame3_of(2, packet)


@pytest.mark.parametrize(
    ("packet", "fault"),
    [
        (THREE, r"is one of OpenSIPS 3\.x, .*: opensips_3_clusters lacks the cluster$"),
        (THREE._replace(type=-1), "type -1: negative types are notices"),
        (TWO._replace(type=-2), "type -2: negative types are notices"),
        (None, "only a Packet can be sent, not None"),
    ],
)
def test_frame_of_other_packets_is_refused(packet: Packet, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        frame_of(packet)


def test_frame3_of_large_packet_is_refused_at_limit_of_4_0() -> None:
    most = 65_515 - THREE._replace(payload=b"").encode().__len__()
    assert len(frame3_of(2, THREE._replace(payload=bytes(most)))) == 65_515
    with pytest.raises(FrameTooLarge, match="takes 65516 bytes"):
        frame3_of(2, THREE._replace(payload=bytes(most + 1)))


@pytest.mark.parametrize("face", [Clusterer, aio.Clusterer])
def test_packet_for_cluster_has_its_dialect(face: type[Clusterer | aio.Clusterer]) -> None:
    instance = face(server_id=5, opensips_3_clusters="2")
    made = instance.packet("hello", 1, cluster_id=2).push_int(3).build()
    assert made == THREE
    assert made.trailer == Trailer(2, 0)
    for cluster_id in (None, 1):
        assert instance.packet("hello", 1, 1, cluster_id).push_int(3).build() == TWO
    with pytest.raises(InvalidArgument, match=r"^cluster_id must be an integer from 1"):
        instance.packet("hello", 1, cluster_id=0)


@pytest.mark.parametrize(("cluster_id", "packet"), [(2, TWO), (1, THREE)])
def test_sends_refuse_packet_of_other_dialect_at_once(cluster_id: int, packet: Packet) -> None:
    with Clusterer(server_id=5, opensips_3_clusters="2", redis_url="redis://127.0.0.1:1") as one:
        for send in (one.send_to, one.post):
            with pytest.raises(InvalidArgument, match=r"packet of type 1 is one of OpenSIPS"):
                send(cluster_id, "bin", packet)
        with pytest.raises(InvalidArgument, match=r"packet of type 1 is one of OpenSIPS"):
            one.send_many(cluster_id, "bin", [packet])
