"""One system call for one answer.

uvicorn writes the head and the body of a response separately, and uvloop sends each at once. Sending is the most
expensive thing a proxy does, so everything written in one turn of the event loop leaves together.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sie_router.edge.malformed import malformed

FLUSH_BYTES: Final = 64 << 10


class OneWriteTransport(asyncio.Transport):
    """The real transport, except that writes wait for the end of the turn or for `FLUSH_BYTES`."""

    __slots__ = ("_loop", "_parts", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send soon."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(bytes(data))
        self._size += len(data)
        if self._size >= FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Send what waits, then close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close now; what waits is lost."""
        self._parts.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """As the real one."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """As the real one."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As the real one."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the real one."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As the real one; a WebSocket takes over here."""
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol on such a transport; WebSockets get the real one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        self._real = transport
        super().connection_made(OneWriteTransport(transport, self.loop))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the server's words are not ours
        """Refuse what is no HTTP; in the middle of an answer there is no place for another one."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(malformed())
            self.transport.close()
        else:
            self.transport.abort()

    def handle_websocket_upgrade(self) -> None:
        """Frames are sent when they are made."""
        self.transport = self._real
        super().handle_websocket_upgrade()
