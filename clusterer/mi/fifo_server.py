"""The server of mi_fifo: requests from one FIFO in their order, replies to many FIFOs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from clusterer.errors import ClustererError
from clusterer.mi import jsonrpc
from clusterer.mi.commands import MiError, Result
from clusterer.mi.fifo import Item, RequestDecoder, RpcRequest, encode
from clusterer.mi.fifo_files import ReplyFailed, RequestFifo, reply_path, write_reply
from clusterer.mi.fifo_lines import Request
from clusterer.mi.jsonrpc import Handler, answer
from clusterer.mi.listen_address import Access
from clusterer.mi.requests import command_from_words
from clusterer.runtime.logs import LimitedLog
from clusterer.runtime.rounds import Rounds

log = logging.getLogger(__name__)

_LOOK_S = 0.5
"""Between two checks that the FIFO exists."""

_REMIND_S = 60.0
"""Between two equal log lines about a FIFO that cannot be made."""

_UNFINISHED_S = 2.0
"""Time without a byte after which an incomplete request is dropped."""

_REPLIES = 256
"""Replies that may wait for their clients; the server reads no request while all are waiting."""

_VIA = "mi fifo"


class FifoServer:
    """Serves one FIFO until `run` is cancelled."""

    def __init__(self, handler: Handler, path: Path, replies: Path, access: Access) -> None:
        """Make the FIFO; raises `ClustererError` if the FIFO cannot be made."""
        if not replies.is_dir():
            raise ClustererError(f"the directory of reply FIFOs {replies} does not exist")
        self._handler = handler
        self._path = path
        self._replies = replies
        self._access = access
        self._log = LimitedLog(log, 1.0)
        self._outages = LimitedLog(log, _REMIND_S)
        self._decoder = RequestDecoder()
        self._fifo: RequestFifo | None = RequestFifo(path, access)
        self._room = asyncio.Semaphore(_REPLIES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._rounds = Rounds("mi fifo")
        self._last_look = self._last_byte = monotonic()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            with self._rounds.guard():
                await self._readable()
                await self._turn(self._fifo.read() if self._fifo else b"", monotonic())
                continue
            await asyncio.sleep(_LOOK_S)

    async def _turn(self, chunk: bytes, now: float) -> None:
        """Execute the requests that ``chunk`` completes; check the FIFO. ``now`` is monotonic."""
        if chunk:
            self._last_byte = now
        elif self._decoder.pending and now - self._last_byte > _UNFINISHED_S:
            await self._take_all(self._decoder.give_up())
        await self._take_all(self._decoder.feed(chunk))
        if now - self._last_look >= _LOOK_S:
            self._last_look = now
            self.look(now)

    async def _take_all(self, items: Iterable[Item]) -> None:
        """Execute requests; an unexpected error ends only its own request."""
        for item in items:
            with self._rounds.guard():
                await self._take(item)

    def close(self) -> None:
        """Remove the FIFO."""
        if self._fifo:
            self._fifo.close()
            self._fifo = None

    async def _readable(self) -> None:
        """Wait for bytes, at most until the next check."""
        if self._fifo is None:
            await asyncio.sleep(_LOOK_S)
            return
        loop, ready, descriptor = asyncio.get_running_loop(), asyncio.Event(), self._fifo.descriptor
        loop.add_reader(descriptor, ready.set)
        try:
            async with asyncio.timeout(_LOOK_S):
                await ready.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)

    def look(self, now: float) -> None:
        """Make a removed FIFO again; ``now`` is monotonic, in seconds."""
        if self._fifo and self._fifo.is_in_place:
            return
        if self._fifo:
            log.warning("mi fifo: %s was removed; creating it again", self._path)
            self.close()
        try:
            self._fifo = RequestFifo(self._path, self._access)
        except ClustererError as error:
            self._outages.warning(
                str(error), now, "mi fifo: no requests can arrive: %s; retrying", error
            )
        else:
            self._outages = LimitedLog(log, _REMIND_S)
            log.warning("mi fifo: %s created again", self._path)

    async def _take(self, item: Item) -> None:
        try:
            path = reply_path(self._replies, item.reply) if item.reply else None
        except ReplyFailed as error:
            what = item.command if isinstance(item, Request) else "a request"
            self._log.warning(item.reply, monotonic(), "mi fifo: %s refused: %s", what, error)
            return
        await self._reply(path, await self._answer(item))

    async def _answer(self, item: Item) -> bytes:
        if isinstance(item, RpcRequest):
            told = await answer(self._handler, item.body, _VIA)
            return told + b"\n" if told else b""
        if isinstance(item, Request):
            return encode(await self._outcome(item))
        self._log.warning("bad", monotonic(), "mi fifo: bad request: %s", item.why)
        if item.is_json:
            return jsonrpc.refusal(jsonrpc.PARSE_ERROR, "Parse error", item.why) + b"\n"
        return encode(item.error)

    async def _outcome(self, request: Request) -> Result | MiError:
        asked = " ".join((request.command, *request.words))
        try:
            command = command_from_words(request.command, request.words)
        except MiError as error:
            why = f"{error}: {error.detail}" if error.detail else str(error)
            self._log.warning(str(error), monotonic(), "mi fifo: command %s: %s", asked, why)
            return error
        log.info("mi fifo: command %s", asked, extra=await self._handler.about(command))
        return await self._handler.handle(command, _VIA)

    async def _reply(self, path: Path | None, data: bytes) -> None:
        """Start the reply; a slow client delays no other client."""
        if path is None:
            return
        await self._room.acquire()
        task = asyncio.create_task(self._write(path, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, path: Path, data: bytes) -> None:
        with self._rounds.guard():
            try:
                await write_reply(path, data)
            except ReplyFailed as error:
                self._log.warning(path, monotonic(), "mi fifo: %s", error)
            finally:
                self._room.release()
