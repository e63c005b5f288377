"""A real HTTP server on loopback that answers by a script: one step a request, the last step for ever after."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

LINGER_OFF = struct.pack("ii", 1, 0)  # close() then sends RST


@dataclass(frozen=True)
class Reply:
    """Answer; with `cut_at`, break the connection after that many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None


@dataclass(frozen=True)
class Reset:
    """Read the request and reset the connection."""


@dataclass(frozen=True)
class Stall:
    """Read the request and say nothing until the client leaves or the server stops."""


@dataclass(frozen=True)
class Drip:
    """Answer with one byte at a time, and so never in full."""

    every_s: float = 0.02


Step = Reply | Reset | Stall | Drip


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def decoded(self) -> Any:
        return msgspec.msgpack.decode(self.body)


class ScriptedServer:
    """What the tests see of the server."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = list(steps)
        self._lock = threading.Lock()
        self.seen: list[Seen] = []
        self.arrived = threading.Semaphore(0)  # released once a request
        self.stopping = threading.Event()
        self.url = ""

    def take(self, seen: Seen) -> Step:
        with self._lock:
            self.seen.append(seen)
            step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        self.arrived.release()
        return step

    def wait_for_request(self) -> None:
        assert self.arrived.acquire(timeout=60), "no request arrived within 60 s"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "_Server"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._act()

    def do_POST(self) -> None:
        self._act()

    def do_DELETE(self) -> None:
        self._act()

    def _act(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        match self.server.script.take(Seen(self.command, self.path, headers, body)):
            case Reply() as reply:
                self._reply(reply)
            case Reset():
                self._reset()
            case Stall():
                self._park()
            case Drip(every_s):
                self._start(Reply(200, b"x" * 1_000_000))
                self._park(every_s)

    def _start(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _reply(self, reply: Reply) -> None:
        self._start(reply)
        self.wfile.write(reply.body[: reply.cut_at])
        self.wfile.flush()
        if reply.cut_at is not None:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_OFF)
        self.connection.shutdown(socket.SHUT_RD)

    def _park(self, drip_every_s: float | None = None) -> None:
        """Keep the connection until the client leaves or the server stops."""
        self.close_connection = True
        self.connection.settimeout(drip_every_s or 0.05)
        while not self.server.script.stopping.is_set():
            try:
                if drip_every_s is not None:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, script: ScriptedServer, on: socket.socket | None) -> None:
        self.script = script
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=on is None)
        if on is not None:
            self.socket.close()
            self.socket = on
            self.server_address = on.getsockname()
            self.server_activate()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests leave in the middle of answers; that is no error of the server."""


@contextmanager
def serving(*steps: Step, on: socket.socket | None = None) -> Iterator[ScriptedServer]:
    """Serve the script on a free port, or on a socket that is bound already."""
    script = ScriptedServer(steps)
    server = _Server(script, on)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        script.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


Serve = Callable[..., ScriptedServer]
