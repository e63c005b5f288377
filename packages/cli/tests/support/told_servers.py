"""HTTP servers that say what they are told to say: a Prometheus, a router of another version, no router at all."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Answer = Callable[[str, Mapping[str, list[str]]], tuple[int, object, Mapping[str, str]]]


@contextlib.contextmanager
def told(answer: Answer) -> Iterator[str]:
    """A server on loopback; `answer` gets path and query, and gives status, JSON value and headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, value, headers = answer(parts.path, parse_qs(parts.query))
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests read answers, not logs."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def prometheus(values: Mapping[str, float]) -> Answer:
    """The query API with these series; a query is answered by the first name that it holds, or by nothing."""

    def answer(_: str, query: Mapping[str, list[str]]) -> tuple[int, object, Mapping[str, str]]:
        asked = query["query"][0]
        found = [value for name, value in values.items() if name in asked]
        result = [{"metric": {}, "value": [0, str(value)]} for value in found[:1]]
        return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}, {}

    return answer
