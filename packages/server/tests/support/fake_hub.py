"""A model hub on loopback that answers as the real one does, as far as a download needs it, and fails on demand."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors", ".bin", ".pt")  # what the hub keeps apart and sends from another host
WAIT_S = 20.0


@dataclass(slots=True)
class FakeHub:
    """Repositories by id; a status instead of a folder is what the hub says about it. `asked` are the paths it saw.

    By the name of a file: `cuts` end a response after so many bytes, one after the other; `sizes` are what the listing
    says instead of the truth; `damaged` are sent with another last byte; `gates` hold the second half back. `ranges`
    are the first bytes that were asked for, `leaks` the paths at which another host saw the token.
    """

    url: str = ""
    repositories: Mapping[str, Path | tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    ranges: dict[str, list[int]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)

    def listing(self, name: str, folder: Path) -> bytes:
        """What the hub tells of a repository."""
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        siblings = [self._sibling(str(file.relative_to(folder)), file) for file in files]
        return json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()

    def _sibling(self, path: str, file: Path) -> dict[str, object]:
        body = file.read_bytes()
        size = self.sizes.get(file.name, len(body))
        blob = sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        known: dict[str, object] = {"rfilename": path, "size": size, "blobId": blob}
        if path.endswith(LARGE):
            known["lfs"] = {"sha256": sha256(body).hexdigest(), "size": size, "pointerSize": 130}
        return known


@contextmanager
def fake_hub(repositories: Mapping[str, Path | tuple[int, str]]) -> Iterator[FakeHub]:
    """Serve until the test ends."""
    hub = FakeHub(repositories=repositories)
    server = _Server(hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        for gate in hub.gates.values():
            gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: FakeHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        hub.asked.append(self.path)
        path = self.path.partition("?")[0].strip("/").removeprefix("api/models/").removeprefix("cdn/")
        name = next((each for each in hub.repositories if path.startswith(each)), "")
        found = hub.repositories.get(name, (404, "RepoNotFound"))
        rest = path.removeprefix(f"{name}/")
        if isinstance(found, tuple):
            self._say(found[0], b"{}", {"X-Error-Code": found[1]})
        elif rest.startswith("revision/"):
            self._say(200, hub.listing(name, found), {"content-type": "application/json"})
        else:
            self._send(found / rest.split("/", 2)[2])

    do_HEAD = do_GET  # noqa: N815 - the base class wants this name

    def _send(self, file: Path) -> None:
        hub, is_elsewhere = self.server.hub, self.path.startswith("/cdn/")
        if file.name.endswith(LARGE) and not is_elsewhere:
            self._say(302, b"", {"location": f"http://localhost:{self.server.server_address[1]}/cdn{self.path}"})
            return
        if is_elsewhere and "authorization" in self.headers:
            hub.leaks.append(self.path)
        body = file.read_bytes()
        if file.name in hub.damaged:
            body = body[:-1] + bytes([body[-1] ^ 1])
        start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        hub.ranges.setdefault(file.name, []).append(start)
        headers = {"content-range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        cut = hub.cuts[file.name].pop(0) if hub.cuts.get(file.name) else None
        self._say(206 if start else 200, body[start:], headers, cut, hub.gates.get(file.name))

    def _say(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        cut: int | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2 if gate is not None else 0
        self.close_connection = self.close_connection or cut is not None
        with contextlib.suppress(OSError):  # the client was killed, which is what the test wants
            self.wfile.write(body[:half])
            self.wfile.flush()
            if gate is not None:
                gate.wait(WAIT_S)
            self.wfile.write(body[half:cut])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class wants this name
        """Say nothing."""
