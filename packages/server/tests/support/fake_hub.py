"""A model hub on loopback that answers as the real one does, for as much of it as a download needs."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34


@dataclass(slots=True)
class FakeHub:
    """Repositories by id; a status instead of a folder is what the hub says about it. `asked` are the paths it saw."""

    url: str = ""
    repositories: Mapping[str, Path | tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def fake_hub(repositories: Mapping[str, Path | tuple[int, str]]) -> Iterator[FakeHub]:
    """Serve until the test ends."""
    hub = FakeHub(repositories=repositories)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.asked.append(self.path)
            path = self.path.partition("?")[0].strip("/").removeprefix("api/models/")
            name = next((each for each in hub.repositories if path.startswith(each)), None)
            found = hub.repositories.get(name or "", (404, "RepoNotFound"))
            if isinstance(found, tuple):
                self._say(found[0], b"{}", {"X-Error-Code": found[1]})
                return
            rest = path.removeprefix(f"{name}/")
            if rest.startswith("revision/") or rest == name:
                files = [str(file.relative_to(found)) for file in sorted(found.rglob("*")) if file.is_file()]
                info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
                self._say(200, json.dumps(info).encode(), {"content-type": "application/json"})
                return
            if rest.startswith("tree/"):
                self._say(200, json.dumps(_tree(found)).encode(), {"content-type": "application/json"})
                return
            body = (found / rest.split("/", 2)[2]).read_bytes()
            etag = sha1(body, usedforsecurity=False).hexdigest()
            self._say(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET  # noqa: N815 - the base class wants this name

        def _say(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class wants this name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _tree(folder: Path) -> list[dict[str, object]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return [
        {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": "0" * 40}
        for file in files
    ]
