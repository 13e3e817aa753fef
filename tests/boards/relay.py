"""A bad link: a TCP relay that delays, stalls, resets and refuses, when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Fault:
    """What goes wrong once `after` more bytes have passed (both ways), or once no byte has passed for a while."""

    kind: Literal["reset", "refuse", "stall"]
    after: int = 0
    #: Fires in a silence of 25 ms after those bytes: while the board computes.
    silence: bool = False
    #: How long a stall lasts, or connections are refused.
    seconds: float = 0.0


class Relay:
    """Listens on `port`, connects to `target`. Settings may be changed at any time, from any thread."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.stalled = False
        self.refusing = False
        self.faults: deque[Fault] = deque()
        self.fired: list[Fault] = []
        self.passed = 0
        self._mark = 0
        self._last = time.monotonic()
        self._open: set[socket.socket] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = self._call(self._listen)

    def cut(self) -> None:
        """Reset every connection now."""
        self._loop.call_soon_threadsafe(self._reset)

    def stop(self) -> None:
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(5)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._watcher = asyncio.create_task(self._watch())
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            if self.faults and self.faults[0].silence and time.monotonic() - self._last > 0.025:
                await self._strike()

    async def _strike(self) -> None:
        """The next fault, if it is due."""
        if not self.faults or self.passed - self._mark < self.faults[0].after:
            return
        fault = self.faults.popleft()
        self.fired.append(fault)
        self._mark = self.passed
        if fault.kind == "stall":
            self.stalled = True
            self._loop.call_later(fault.seconds, setattr, self, "stalled", False)
            return
        if fault.kind == "refuse":
            self.refusing = True
            self._loop.call_later(fault.seconds, setattr, self, "refusing", False)
        self._reset()

    def _reset(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RD)  # wakes the reader, which then closes: with a reset
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        ours = {each.get_extra_info("socket") for each in (writer, back)}
        self._open |= ours
        pumps = [asyncio.create_task(self._pump(*pair)) for pair in ((reader, back), (there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= ours
            for pump in pumps:
                pump.cancel()
            for each in (writer, back):
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                while self.stalled:
                    await asyncio.sleep(0.01)
                self._last = time.monotonic()
                self.passed += len(data)
                if self.faults and not self.faults[0].silence:
                    await self._strike()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()


@contextlib.contextmanager
def relaying(target: int) -> Iterator[Relay]:
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.stop()
