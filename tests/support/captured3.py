"""Captured frames of the modules of OpenSIPS 3.x, with their decoding by another program."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from clusterer.wire import Packet
from tests.support.vectors3 import captured, packet_of

_MOVED_IN_3_2 = "clusterer-extra"
"""Capability whose packet types were smaller by one until 3.1."""


class Captured3(NamedTuple):
    """One captured frame with what the capture knew about it."""

    run: str
    module: str
    type: int
    """As from 3.2 on, also for frames of 3.1."""
    version: int
    frame: bytes
    decoded: dict[str, Any]

    @property
    def packet(self) -> Packet:
        """The packet in the frame, with its type as from 3.2 on."""
        packet = packet_of(self.frame)
        return packet._replace(type=self.type) if self.module == _MOVED_IN_3_2 else packet

    def __str__(self) -> str:
        return f"{self.run}-{self.module}-{self.type}"


@functools.cache
def frames_of_modules() -> tuple[Captured3, ...]:
    """Return all different captured frames but those of the topology."""
    return tuple(
        Captured3(
            item["run"],
            item["module"],
            item["type"],
            item["version"],
            bytes.fromhex(item["frame"]),
            item["decoded"],
        )
        for item in captured()
        if item["module"] != "clusterer-internal"
    )
