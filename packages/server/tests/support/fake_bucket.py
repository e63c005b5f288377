"""A bucket on loopback that speaks S3 as far as reading and writing objects goes, and fails on demand."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from obstore.store import S3Store

from sie_server.weights.cluster import ClusterCache


@dataclass(slots=True)
class FakeBucket:
    """Objects by key. `status` is what every request gets instead; `cuts` end that many responses in the middle.

    Ranges that begin at `broken_from` or later get a server error. `starts` are the first bytes of the ranges that
    were sent whole.
    """

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    status: int | None = None
    cuts: int = 0
    broken_from: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def cache(self) -> ClusterCache:
        """The bucket as a cluster cache."""
        store = S3Store(
            "models",
            endpoint=self.url,
            region="none",
            access_key_id="key",
            secret_access_key="secret",  # noqa: S106 - nobody checks it
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            retry_config={"max_retries": 2, "backoff": {"init_backoff": timedelta(milliseconds=5)}},
        )
        return ClusterCache("s3://models", store)


@contextmanager
def fake_bucket() -> Iterator[FakeBucket]:
    """Serve until the test ends."""
    bucket = FakeBucket()
    server = _Server(bucket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    bucket.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bucket = bucket


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    @property
    def _bucket(self) -> FakeBucket:
        return self.server.bucket

    def do_GET(self) -> None:
        key = self._key()
        body = self._bucket.objects.get(key)
        if self._bucket.status is not None or body is None:
            self._say(self._bucket.status or 404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        wanted = self.headers.get("range")
        start, _, end = (wanted or "bytes=0-").removeprefix("bytes=").partition("-")
        if self._bucket.broken_from is not None and int(start) >= self._bucket.broken_from:
            self._say(500, b"")
            return
        part = body[int(start) : int(end) + 1 if end else None]
        found = {"content-range": f"bytes {start}-{int(start) + len(part) - 1}/{len(body)}"} if wanted else {}
        self._say(206 if wanted else 200, part, found)

    do_HEAD = do_GET  # noqa: N815 - the base class wants this name

    def do_PUT(self) -> None:
        key, body = self._key(), self.rfile.read(int(self.headers["content-length"]))
        part = parse_qs(self.path.partition("?")[2]).get("partNumber")
        if part is None:
            self._bucket.objects[key] = body
        else:
            self._bucket.parts[key][int(part[0])] = body
        self._say(self._bucket.status or 200, b"")

    def do_POST(self) -> None:
        key = self._key()
        self.rfile.read(int(self.headers["content-length"]))
        if "?uploads" in self.path:
            self._bucket.parts[key] = {}
            self._say(
                200,
                b"<InitiateMultipartUploadResult><Bucket>models</Bucket><Key>k</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>",
            )
            return
        self._bucket.objects[key] = b"".join(body for _, body in sorted(self._bucket.parts.pop(key).items()))
        self._say(
            200,
            b"<CompleteMultipartUploadResult><Bucket>models</Bucket><Key>k</Key><ETag>e</ETag></CompleteMultipartUploadResult>",
        )

    def _key(self) -> str:
        key = self.path.partition("?")[0].removeprefix("/models/").replace("%40", "@").replace("%2B", "+")
        self._bucket.asked.append((self.command, key))
        return key

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        known = {"last-modified": "Mon, 01 Jan 2024 00:00:00 GMT", "etag": '"e"', "content-length": str(len(body))}
        for name, value in {**known, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._bucket.cuts and len(body) > 1000:
            self._bucket.cuts -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)
        if headers and len(body) > 1000:
            self._bucket.starts.append(int(headers["content-range"].removeprefix("bytes ").partition("-")[0]))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class wants this name
        """Say nothing."""
