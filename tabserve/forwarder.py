"""Forward connections to a service that can be replaced by another while clients ask."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

PIECE_BYTES = 1 << 16


class Forwarder:
    """Listens on a port, in a thread of its own, and forwards each connection as a whole to `target`.

    A new target is for new connections; those to the former one last until it closes them.
    port: where it listens. target: the port of the service, on the same host. options: of asyncio.start_server, such
    as `ssl`.
    """

    def __init__(self, host: str, port: int, target: int, **options: Any) -> None:
        self._host, self.port, self.target = host, port, target
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forwarding", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Forwarder:
        """Start to listen. Raises OSError if the port is taken."""
        self._thread.start()
        starting = asyncio.start_server(self._accept, self._host, self.port, **self._options)
        try:
            self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        except OSError:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, and end what is still connected."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._end()

    async def _stop(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._forward(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                there, to_there = await asyncio.open_connection(self._host, self.target)
                try:
                    await asyncio.gather(self.pump(reader, to_there), self.pump(there, writer))
                finally:
                    to_there.transport.abort()
            finally:
                writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one side sends, until it ends."""
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
