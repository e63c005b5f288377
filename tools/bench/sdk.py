"""What a call of the SDK costs: CPU time beside a bare httpx post of the same bytes, and what an import takes.

    python tools/bench/sdk.py

The server is another process's worth of threads in this one, so only the calling thread's CPU time is counted. Both
kinds of calls alternate in short rounds, so that a busy machine disturbs both alike; the best round of each counts.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx
import msgspec
import numpy as np

from sie_protocol.arrays import pack
from sie_protocol.headers import MSGPACK
from sie_sdk import SIEClient

ROUNDS: Final = 15
CALLS: Final = 100
IMPORT: Final = "import time; b = time.perf_counter(); import sie_sdk; print(time.perf_counter() - b)"


def answer_of(items: int, dims: int) -> bytes:
    """A msgpack answer with this many dense vectors."""
    vector = np.linspace(0, 1, dims, dtype=np.float32)
    dense = {"dims": dims, "dtype": "float32", "values": vector}
    return msgspec.msgpack.encode({"model": "m", "items": [{"dense": dense}] * items}, enc_hook=pack)


@contextmanager
def serving(answer: bytes) -> Iterator[str]:
    """A server that says the same to everybody; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", MSGPACK)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cost_s(call: Callable[[], object]) -> float:
    """CPU seconds of this thread for one call."""
    began = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - began) / CALLS


def overhead_s() -> tuple[float, float]:
    """CPU seconds of a bare post and of `encode`, the best of alternating rounds."""
    body = msgspec.msgpack.encode({"items": [{"text": "hello world"}]})
    with serving(answer_of(1, 1024)) as url, httpx.Client() as bare, SIEClient(url) as client:
        rounds = [
            (
                cost_s(lambda: bare.post(f"{url}/v1/encode/m", content=body, headers={"Content-Type": MSGPACK})),
                cost_s(lambda: client.encode("m", {"text": "hello world"})),
            )
            for _ in range(ROUNDS)
        ]
    bare_s, ours_s = zip(*rounds, strict=True)
    return min(bare_s), min(ours_s)


def import_s() -> float:
    """Seconds to import the SDK in a fresh interpreter, the best of five."""
    command = [sys.executable, "-c", IMPORT]
    return min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(5))


def main() -> None:
    """Print the figures."""
    bare_s, ours_s = overhead_s()
    print(f"bare httpx post       {bare_s * 1e3:.3f} ms CPU")
    print(f"SIEClient.encode      {ours_s * 1e3:.3f} ms CPU, {(ours_s - bare_s) * 1e3:+.3f} ms")
    print(f"import sie_sdk        {import_s() * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
