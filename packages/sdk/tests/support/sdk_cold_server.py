"""A real server without a worker until it is told that there is one; it keeps requests as a router does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

import sdk_answers as published
from sdk_server import Reply

OFFER_S = 20
COME_BACK = published.said(202, {"gpu": "l4", "message": "one is started"}, Retry_After="120", X_SIE_Wait=f"{OFFER_S}")


class ColdServer:
    """`ready` is set when a worker is there; `kept` are requests that wait now, `most_kept` ever did.

    `told` counts those that were sent away, `served` those that were answered.
    """

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.url = ""
        self._lock = threading.Lock()
        self.kept = self.most_kept = self.told = self.served = 0

    def answer(self, headers: Any, raw: bytes) -> Reply:
        """What the server says to one request."""
        wait_s = int(headers.get("X-SIE-Wait", "0"))
        if not self.ready.is_set() and wait_s:
            with self._lock:
                self.kept += 1
                self.most_kept = max(self.most_kept, self.kept)
            self.ready.wait(wait_s)
            with self._lock:
                self.kept -= 1
        with self._lock:
            if not self.ready.is_set():
                self.told += 1
                return COME_BACK
            self.served += 1
        items = msgspec.msgpack.decode(raw)["items"]
        return published.encoded([published.dense_item(float(item["text"])) for item in items])


@contextmanager
def cold_server() -> Iterator[ColdServer]:
    """Run one until the block ends."""
    cold = ColdServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            reply = cold.answer(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(reply.body)
                self.wfile.flush()
            except OSError:
                self.close_connection = True  # the client left while it was kept

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    cold.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield cold
    finally:
        cold.ready.set()
        server.shutdown()
        thread.join()
        server.server_close()
