"""The stream under a log counts lines that cannot be written, and never raises or waits long."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO, cast

import pytest

from clusterer.runtime.logs.handler import SummarisingHandler
from clusterer.runtime.streams import LogStream
from tests.support.processes import LATE_S

PATIENCE_S = 0.3
FULL = "/dev/full"


@dataclass
class Pipe:
    reader: int
    writer: int

    def read(self) -> str:
        """Return the bytes in the pipe."""
        os.set_blocking(self.reader, False)
        found = b""
        try:
            while chunk := os.read(self.reader, 65_536):
                found += chunk
        except BlockingIOError:
            pass
        return found.decode()

    def fill(self) -> None:
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer, True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe of two pages."""
    made = Pipe(*os.pipe())
    fcntl.fcntl(made.writer, fcntl.F_SETPIPE_SZ, 2 * 4096)
    yield made
    for descriptor in (made.reader, made.writer):
        with contextlib.suppress(OSError):  # the test may have closed it
            os.close(descriptor)


def test_stream_with_reader_that_stopped_waits_once(pipe: Pipe) -> None:
    stream = LogStream(pipe.writer, patience_s=PATIENCE_S)
    pipe.fill()
    began = time.monotonic()
    for number in range(100):
        stream.write(f"line {number}\n")
    assert PATIENCE_S <= time.monotonic() - began < PATIENCE_S + LATE_S
    assert stream.lost == 100
    pipe.read()
    stream.write("again\n")
    assert pipe.read() == "100 lines of this log were lost: not read for 0.3 s\nagain\n"
    stream.write("and on\n")
    assert pipe.read() == "and on\n"
    assert stream.lost == 0


def test_stream_waits_for_slow_reader(pipe: Pipe) -> None:
    """Nothing is lost where the reader goes on in time; without a bound, ever."""
    for patience_s in (30.0, None):
        stream, got = LogStream(pipe.writer, patience_s=patience_s), bytearray()

        def read(got: bytearray = got) -> None:
            while not got.endswith(b"end\n"):
                time.sleep(0.02)
                got += os.read(pipe.reader, 1024)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(300):
            stream.write(f"{number:60}\n")
        stream.write("end\n")
        reader.join(30)
        assert got.count(b"\n") == 301
        assert stream.lost == 0


def test_stream_line_cut_in_the_middle_is_ended(pipe: Pipe) -> None:
    """A line of several pages of which the pipe took two."""
    stream = LogStream(pipe.writer, patience_s=0.0)
    stream.write("y" * 10_000 + "\n")
    assert set(pipe.read()) == {"y"}
    stream.write("next\n")
    assert pipe.read() == "\n1 line of this log was lost: not read for 0 s\nnext\n"


def test_stream_without_reader_goes_on(pipe: Pipe) -> None:
    stream = LogStream(pipe.writer, patience_s=PATIENCE_S)
    os.close(pipe.reader)
    stream.write("one\ntwo\n")
    assert stream.lost == 2


def test_stream_on_full_disk_says_so_elsewhere_once(pipe: Pipe) -> None:
    disk = os.open(FULL, os.O_WRONLY)
    try:
        stream = LogStream(disk, patience_s=PATIENCE_S)
        stream.elsewhere = pipe.writer
        stream.notice = lambda text: f"<{text}>\n"
        for _ in range(5):
            stream.write("line\n")
        assert stream.lost == 5
        why = "the log cannot be written: No space left on device"
        assert pipe.read() == f"<{why}; the process continues without a log>\n"
    finally:
        os.close(disk)


def test_stream_on_closed_descriptor_goes_on(pipe: Pipe) -> None:
    os.close(pipe.reader)
    closed = pipe.reader
    stream = LogStream(closed, patience_s=PATIENCE_S)
    stream.write("line\n")
    assert stream.lost == 1


def test_stream_forked_child_writes(pipe: Pipe) -> None:
    stream = LogStream(pipe.writer, patience_s=PATIENCE_S)
    child = os.fork()
    if not child:
        stream.write("child\n")
        os._exit(0)
    os.waitpid(child, 0)
    assert pipe.read() == "child\n"


def test_stream_takes_text_only(pipe: Pipe) -> None:
    stream = LogStream(pipe.writer)
    with pytest.raises(TypeError):
        stream.write(b"bytes")  # type: ignore[arg-type]
    stream.write("\udcff ü\n")
    assert pipe.read() == "\\udcff ü\n"


def test_handler_at_end_says_what_was_lost(pipe: Pipe) -> None:
    stream = LogStream(pipe.writer, patience_s=0.0)
    handler = SummarisingHandler(cast(TextIO, stream))
    pipe.fill()
    handler.emit(logging.makeLogRecord({"msg": "lost", "levelno": logging.WARNING}))
    pipe.read()
    handler.close()
    assert pipe.read() == "1 line of this log was lost: not read for 0 s\n"


def test_stream_leaves_others_description_as_it_is(pipe: Pipe) -> None:
    """Another process that has the pipe does not find it non-blocking."""
    LogStream(pipe.writer, patience_s=PATIENCE_S).write("x\n")
    assert os.get_blocking(pipe.writer)
