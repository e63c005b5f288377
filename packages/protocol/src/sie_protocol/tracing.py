"""Spans of inference requests, by OpenTelemetry (the extra `otel`). Imported only where tracing is switched on.

Where spans go, how they are sampled and what the service is called is for the standard `OTEL_*` variables to say, which
OpenTelemetry itself reads.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sie_protocol import headers
from sie_protocol.compat import COMPAT_PATHS
from sie_protocol.versions import VERSION

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CONTEXT: Final = frozenset({b"traceparent", b"tracestate"})  # W3C Trace Context
_TRACE_ID: Final = headers.TRACE_ID.lower().encode()
_OPERATIONS: Final = tuple(headers.operation_path(operation, "") for operation in headers.INFERENCE_OPERATIONS)
_TEXTS: Final = MappingProxyType(
    {
        headers.WORKER.lower().encode(): "sie.worker",
        headers.REQUEST_ID.lower().encode(): "sie.request_id",
        headers.ERROR_CODE.lower().encode(): "error.type",
    }
)
_TIMINGS: Final = MappingProxyType(
    {
        headers.QUEUE_TIME.lower().encode(): "sie.queue_ms",
        headers.TOKENIZATION_TIME.lower().encode(): "sie.tokenization_ms",
        headers.INFERENCE_TIME.lower().encode(): "sie.inference_ms",
        headers.POSTPROCESSING_TIME.lower().encode(): "sie.postprocessing_ms",
    }
)
_FAILED: Final = 500


class Tracing:
    """Makes spans and sends them from a thread of its own, at most 2048 behind. `close` sends what is left."""

    def __init__(self, service: str) -> None:
        # `create` lets OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what is said here.
        self._provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": VERSION}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sie", VERSION)
        self._context = TraceContextTextMapPropagator()

    def around(self, app: App) -> App:
        """The ASGI application with a span around each inference request.

        The application finds this span as the parent in its request's `traceparent`, and passes it on.
        """

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            route = _route(scope)
            if route is None:
                await app(scope, receive, send)
                return
            span = self._begin(scope, route)

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note(span, message)
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                span.end()

        return traced

    def close(self) -> None:
        """Send what is left and stop; may take seconds when nobody listens."""
        self._provider.shutdown()

    def _begin(self, scope: Scope, route: str) -> Span:
        came = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT}
        attributes = {"http.request.method": scope["method"], "http.route": route, "url.path": scope["path"]}
        parent: Context = self._context.extract(came, Context())
        span = self._tracer.start_span(
            f"{scope['method']} {route}", parent, SpanKind.SERVER, attributes=attributes, record_exception=False
        )
        goes: dict[str, str] = {}
        self._context.inject(goes, set_span_in_context(span, parent))
        kept = [header for header in scope["headers"] if header[0] not in _CONTEXT]
        scope["headers"] = [*kept, *((name.encode(), value.encode("latin-1")) for name, value in goes.items())]
        return span


def _route(scope: Scope) -> str | None:
    """A name for the kind of request, of which there are few; None for those without a span."""
    if scope["type"] != "http":
        return None
    path: str = scope["path"]
    if path in COMPAT_PATHS:
        return path
    return next((prefix + "{model}" for prefix in _OPERATIONS if path.startswith(prefix)), None)


def _note(span: Span, start: Message) -> None:
    """Copy what the head of the answer tells onto the span, and the trace's id onto the answer."""
    status: int = start["status"]
    span.set_attribute("http.response.status_code", status)
    if status >= _FAILED:
        span.set_status(StatusCode.ERROR)
    has_id = False
    for name, value in start["headers"]:
        has_id = has_id or name == _TRACE_ID
        if name in _TEXTS:
            span.set_attribute(_TEXTS[name], value.decode("latin-1"))
        elif name in _TIMINGS:
            span.set_attribute(_TIMINGS[name], float(value))
    if not has_id:
        trace_id = format_trace_id(span.get_span_context().trace_id)
        start["headers"] = [*start["headers"], (_TRACE_ID, trace_id.encode())]
