"""Spans of a real router and a real worker, as a collector receives them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from local_cluster import eventually, kept_port
from served_worker import process, write_catalog

MODEL = "org/hash"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Listens for OTLP over HTTP and keeps what came, by name of the service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[tuple[str, Span]] = []

    @property
    def url(self) -> str:
        """Where to send spans."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def of(self, service: str, trace_id: str) -> list[Span]:
        """The spans of one service in one trace."""
        return [span for name, span in self.spans if name == service and span.trace_id.hex() == trace_id]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take spans."""
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            self.server.spans.extend((names["service.name"], span) for span in spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's signature
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def router(worker: str, env: dict[str, str]) -> Iterator[str]:
    with kept_port() as port:
        yield from listening(port, worker, env)


def listening(port: int, worker: str, env: dict[str, str]) -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("sie-router")), "serve", "--host", "127.0.0.1", "-p", str(port)]
    popen = subprocess.Popen([*command, "-w", worker, "--group", "l4", "-l", "error"], env={**os.environ, **env})  # noqa: TID251 - for a child
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: httpx.get(f"{url}/readyz").json().get("healthy_workers") == 1)
        yield url
    finally:
        popen.terminate()
        popen.wait(60)


def facts(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_spans_of_one_request_share_its_trace(tmp_path: Path, collector: Collector) -> None:
    write_catalog(tmp_path, {MODEL: {}})
    folders = ["--models-dir", str(tmp_path / "models"), "--bundles-dir", str(tmp_path / "bundles")]
    env = {
        "SIE_TRACING_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "SIE_MACHINE_PROFILE": "l4",
    }
    with process(*folders, env=env) as worker, router(worker.url, env) as url:
        with worker.client() as http:
            worker.encode(http, MODEL, "load it")
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-1"}
        answer = httpx.post(f"{url}/v1/encode/{MODEL}", json={"items": [{"text": "a"}]}, headers=headers)
        assert (answer.status_code, answer.headers["x-trace-id"]) == (200, TRACE)
        fresh = httpx.post(f"{url}/v1/embeddings", json={"model": "org/none", "input": "a"})
        assert fresh.headers["x-trace-id"] != TRACE
        eventually(lambda: collector.of("sie-router", TRACE) and collector.of("sie-server", TRACE))
        eventually(lambda: collector.of("sie-router", fresh.headers["x-trace-id"]))
        assert httpx.get(f"{url}/healthz").headers.get("x-trace-id") is None
    (outer,), (inner,) = collector.of("sie-router", TRACE), collector.of("sie-server", TRACE)
    assert (outer.name, outer.parent_span_id.hex()) == ("POST /v1/encode/{model}", PARENT)
    assert inner.parent_span_id == outer.span_id
    assert outer.start_time_unix_nano <= inner.start_time_unix_nano <= outer.end_time_unix_nano
    assert facts(outer)["sie.request_id"] == facts(inner)["sie.request_id"] == "r-1"
    assert {"sie.queue_ms", "sie.tokenization_ms", "sie.inference_ms"} <= facts(inner).keys()
    assert facts(outer)["http.response.status_code"] == 200
    (refused,) = collector.of("sie-router", fresh.headers["x-trace-id"])
    assert facts(refused)["error.type"] == fresh.headers["x-sie-error-code"]
    assert not any(span.name == "GET /healthz" for _, span in collector.spans)
