"""Joined frames: where each frame ends, and the module of each frame.

Frames of one size, as most are that come many at a time, are compared by columns: every n-th byte
at once costs little more than a look at one frame. Bytes that are no frames do no harm.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from struct import error as StructError  # noqa: N812 - a class, whatever its name

from clusterer.store.labels import MAX_NAME
from clusterer.wire import frame3, layout3
from clusterer.wire.layout import INT, LENGTH, MARKER, MIN_FRAME, NAME_AT

_LENGTH_AT = len(MARKER)

_FEW = 8
"""Frames that are faster looked at one by one."""

NameAt = tuple[int, int]
"""Offsets of the length of a module's name, and of the name that follows it."""

NAME_AT_2: NameAt = NAME_AT - INT.size, NAME_AT
NAME_AT_3: NameAt = layout3.NAME_AT - layout3.STR_LENGTH.size, layout3.NAME_AT
"""Of the dialects 2.2 and 3.x."""

NAME_LENGTH_3 = slice(*NAME_AT_3)
UNDEFINED = bytes(layout3.STR_LENGTH.size)
"""What a frame of 2.2 in a log has there; in one of 3.x the length of the name is never 0."""

ModuleCount = tuple[bytes, int, int]
"""The name of a module (of a name that is too long for a label, the beginning), the number of its
packets, and their bytes."""


def frame_ends(frames: bytes) -> Sequence[int]:
    """Return the offset at which each of the joined frames ends."""
    return _even_ends(frames) or _any_ends(frames)


def are_frames(frames: bytes, packets: int) -> bool:
    """Whether ``frames`` are exactly ``packets`` whole BIN frames."""
    size = len(frames)
    if size < MIN_FRAME or not frames.startswith(MARKER):
        return False
    if packets == 1:
        return bool(LENGTH.unpack_from(frames, _LENGTH_AT)[0] == size)
    ends = frame_ends(frames)
    if len(ends) != packets or ends[-1] != size:
        return False
    if isinstance(ends, range):
        # A look at each frame's first byte; all of the marker would take twice as long.
        return _alike(frames, ends.step, packets, range(1))
    begins = (0, *ends[:-1])
    return all(
        frames.startswith(MARKER, at) and end - at >= MIN_FRAME
        for at, end in zip(begins, ends, strict=True)
    )


def are_frames3(frames: bytes, cluster_id: int) -> bool:
    """Whether joined frames, all whole, are frames of modules of OpenSIPS 3.x for this cluster."""
    ends = frame_ends(frames)
    if isinstance(ends, range) and frame3.is_for(frames[: ends.step], cluster_id):
        size, head = ends.step, layout3.NAME_AT + frame3.name_length(frames)
        named = size - layout3.TRAILER.size
        if _alike(frames, size, len(ends), range(NAME_LENGTH_3.start, head)):
            return _alike(frames, size, len(ends), range(named, named + INT.size))
    begins = (0, *ends[:-1])
    return all(
        frame3.is_for(frames[at:end], cluster_id) for at, end in zip(begins, ends, strict=True)
    )


def _even_ends(frames: bytes) -> Sequence[int]:
    """Return the ends if there are many frames and all are of one size; else nothing."""
    size = int.from_bytes(frames[_LENGTH_AT : _LENGTH_AT + LENGTH.size], "little")
    if size < MIN_FRAME or len(frames) % size or len(frames) < _FEW * size:
        return ()
    # The first says where the second begins; if that says the same, so does the third's place.
    columns = range(_LENGTH_AT, _LENGTH_AT + LENGTH.size)
    alike = _alike(frames, size, len(frames) // size, columns)
    return range(size, len(frames) + 1, size) if alike else ()


def _any_ends(frames: bytes) -> Sequence[int]:
    ends: list[int] = []
    at, end, unpack, length_at = 0, len(frames), LENGTH.unpack_from, _LENGTH_AT
    try:
        while at < end:
            at += unpack(frames, at + length_at)[0] or end
            ends.append(at)
    except StructError:
        ends.append(end)
    return ends


class Modules:
    """The modules of joined frames."""

    __slots__ = ("_ends", "_names", "_until", "whole")

    def __init__(self, frames: bytes, ends: Sequence[int], name_at: NameAt = NAME_AT_2) -> None:
        """Take joined frames of one dialect, and where each ends."""
        name, count = _name(frames, 0, name_at), len(ends)
        self._ends = ends
        self._names, self._until = [name], [count]
        """Of each run of frames of one module its name, and the index of the frame behind it."""
        self.whole: Sequence[ModuleCount] = ((name, count, len(frames)),)
        """The count of each module in all frames."""
        if count > 1 and not _all_named(name, frames, ends, name_at):
            names = (_name(frames, at, name_at) for at in (0, *ends[:-1]))
            runs = [(name, sum(1 for _ in group)) for name, group in groupby(names)]
            self._names = [name for name, _ in runs]
            self._until = list(accumulate(packets for _, packets in runs))
            self.whole = self._counts(0, count)

    def between(self, first: int, end: int) -> Sequence[ModuleCount]:
        """Return the counts of the frames from index ``first`` to before ``end``."""
        count = len(self._ends)
        if first == 0 and end >= count:
            return self.whole
        return self._counts(first, min(end, count))

    def _counts(self, first: int, end: int) -> Sequence[ModuleCount]:
        run = bisect_right(self._until, first)
        began = self._ends[first - 1] if 0 < first < end else 0
        found: dict[bytes, ModuleCount] = {}
        while first < end:
            until = min(self._until[run], end)
            ended, name = self._ends[until - 1], self._names[run]
            _, packets, size = found.get(name, (name, 0, 0))
            found[name] = name, packets + until - first, size + ended - began
            first, began, run = until, ended, run + 1
        return tuple(found.values())


def _all_named(name: bytes, frames: bytes, ends: Sequence[int], name_at: NameAt) -> bool:
    """Whether all frames are of the module with that name, as the first is."""
    if len(name) > MAX_NAME:
        return False
    first, behind = name_at[0], name_at[1] + len(name)
    if isinstance(ends, range):
        return _alike(frames, ends.step, len(ends), range(first, behind))
    found = [frames[at + first : at + behind] for at in ends[:-1]]
    return found.count(frames[first:behind]) == len(found)


def _alike(frames: bytes, size: int, packets: int, columns: Iterable[int]) -> bool:
    """Whether frames of one ``size`` all have the same in ``columns``."""
    return all(frames[at::size] == frames[at : at + 1] * packets for at in columns)


def _name(frames: bytes, at: int, name_at: NameAt) -> bytes:
    length_at, begin = at + name_at[0], at + name_at[1]
    length = int.from_bytes(frames[length_at:begin], "little")
    return frames[begin : begin + (length if length <= MAX_NAME else MAX_NAME + 1)]
