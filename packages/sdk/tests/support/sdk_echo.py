"""A real HTTP server that answers every item by itself: the vector of "17" is [17], its score 17."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

import sdk_answers as published
from sdk_server import Reply

BUSY = published.said(503, {"error": {"code": "QUEUE_FULL", "message": "busy"}}, Retry_After="0.1")
TOO_LONG = published.said(413, {"error": {"code": "INPUT_TOO_LONG", "message": "too long"}})


class EchoServer:
    """`sizes`: items of each request; `refuse` and `busy_once`: texts of items whose request is refused."""

    def __init__(self, refuse: str | None, busy_once: str | None) -> None:
        self._refuse = refuse
        self._busy = {busy_once}
        self._lock = threading.Lock()
        self._at_once = 0
        self.most_at_once = 0
        self.sizes: list[int] = []
        self.url = ""

    def answer(self, path: str, raw: bytes) -> Reply:
        """What the server says to one request."""
        body = msgspec.msgpack.decode(raw)
        texts = [item["text"] for item in body["items"]]
        with self._lock:
            self.sizes.append(len(texts))
            busy = self._busy.intersection(texts)
            self._busy -= busy
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if busy:
                return BUSY
            return TOO_LONG if self._refuse in texts else _result(path.split("/")[2], body["items"])
        finally:
            with self._lock:
                self._at_once -= 1


def _result(operation: str, items: list[dict[str, Any]]) -> Reply:
    ids = [item.get("id", f"item-{at}") for at, item in enumerate(items)]
    texts = [item["text"] for item in items]
    match operation:
        case "encode":
            return published.encoded([published.dense_item(float(text)) for text in texts])
        case "score":
            pairs = [(name, float(text)) for name, text in zip(ids, texts, strict=True)]
            return published.scored(*sorted(pairs, key=lambda pair: -pair[1]))
        case _:
            bad = {"code": "INVALID_INPUT", "message": "bad"}
            return published.extracted(
                *({"id": n, **({"error": bad} if t == "bad" else {})} for n, t in zip(ids, texts, strict=True))
            )


@contextmanager
def echoing(refuse: str | None = None, busy_once: str | None = None) -> Iterator[EchoServer]:
    """Run one until the block ends."""
    echo = EchoServer(refuse, busy_once)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        wbufsize = -1

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            reply = echo.answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    echo.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield echo
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


Serving = Callable[..., EchoServer]
