"""Captured packets of the modules of OpenSIPS 3.x, with their decoding by another program."""

from __future__ import annotations

from clusterer.wire import Packet
from clusterer.wire.layout3 import EXTRA, INTERNAL
from tests.support.vectors import Captured3, opensips3_frames
from tests.support.vectors3 import packet_of


def frames_of_modules() -> list[Captured3]:
    """Return all different captured frames but those of the topology."""
    return [each for each in opensips3_frames() if each.module != INTERNAL]


def packet_in(captured: Captured3) -> Packet:
    """Return the packet; of `EXTRA`, with the type from 3.2 on, which was smaller by one before."""
    packet = packet_of(captured.frame)
    return packet._replace(type=captured.type) if captured.module == EXTRA else packet
