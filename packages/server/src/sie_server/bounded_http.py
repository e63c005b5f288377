"""uvicorn's HTTP/1.1 with bounds on what stands around bodies, which its parser collects for as long as it comes."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sie_protocol.codec import MAX_HEAD_BYTES

HEAD_S: Final = 75.0  # until a head that begins with a connection, or behind an answer, is whole
TOO_LONG: Final = f"a head, trailers or a chunk's extension are longer than {MAX_HEAD_BYTES} bytes"


class BoundedHttp(HttpToolsProtocol):
    """Gives up a connection whose head is too long or too slow, or that goes on without end behind a body."""

    head_s = HEAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._around_bytes = 0  # since the last head, or piece of a body
        self._too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Wait for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much."""
        self._around_bytes += len(data)
        super().data_received(data)
        if self._around_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._give_up()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self._around_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body, which the application bounds."""
        self._around_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._around_bytes = 0
        super().on_message_complete()

    def _give_up(self) -> None:
        if self._is_answering():
            self.transport.close()
        else:
            self.send_400_response(TOO_LONG)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self._stop_timer()
        self._too_slow = self.loop.call_later(self.head_s, self._head_is_too_slow)

    def _stop_timer(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _head_is_too_slow(self) -> None:
        if self._is_answering():  # a request sent ahead has its time after the one before it
            self._too_slow = self.loop.call_later(self.head_s, self._head_is_too_slow)
        else:
            self.transport.close()
