"""The worker's metrics: the only place that names them. `GET /metrics` reads, and changes nothing."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from sie_protocol.errors import ErrorCode
from sie_protocol.status import ModelStatus
from sie_server.core.memory import Reading
from sie_server.engine.loop import BatchRecord
from sie_server.engine.recovery import OomEvent
from sie_server.weights.store import FetchRecord

OTHER = "other"  # the label of every model that is not in the catalogue: callers do not make label values
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
FETCH_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
SOURCES = ("cluster", "hub")  # of weights
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)

OOM_EVENTS = MappingProxyType(
    {
        OomEvent.ATTEMPTED: "Batches that failed",
        OomEvent.SUCCEEDED: "Batches that were computed after all, having failed",
        OomEvent.TERMINAL: "Batches or pieces of one that were given up",
        OomEvent.CLEARED: "Times that caches were freed",
        OomEvent.EVICTED: "Models unloaded",
        OomEvent.SPLIT: "Batches or pieces of one that were halved",
    }
)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished request: the catalogue's id of its model, HTTP status (499: the client left), seconds by phase.

    `error`: the code of a refusal.
    """

    model: str | None
    endpoint: str
    status: int
    phases: Mapping[str, float]
    error: ErrorCode | None = None

    @property
    def outcome(self) -> str:
        """The status in the words that dashboards of published workers look for."""
        if self.status == HTTPStatus.OK:
            return "success"
        return "queue_full" if self.error is ErrorCode.QUEUE_FULL else "error"


Statuses = Callable[[], Collection[ModelStatus]]
Memory = Callable[[], Reading | None]


class Metrics:
    """One registry per worker process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        model, request = ("model",), ("model", "endpoint")
        self._requests = Counter(
            "sie_requests", "Requests answered", (*request, "status", "code"), registry=self._registry
        )
        self._duration = Histogram(
            "sie_request_duration_seconds",
            "Time of successful requests by phase",
            (*request, "phase"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch_size = Histogram(
            "sie_batch_size", "Items of a batch", model, buckets=ITEMS, registry=self._registry
        )
        self._batch_tokens = Histogram(
            "sie_batch_tokens", "Tokens of a batch", model, buckets=TOKENS, registry=self._registry
        )
        self._tokens = Counter("sie_tokens_processed", "Tokens computed", model, registry=self._registry)

        self._oom = {  # registered with the zeros of models that never lacked any
            event: Counter(f"sie_oom_{event}", f"{what} for lack of memory", model, registry=None)
            for event, what in OOM_EVENTS.items()
        }
        self._idle = Counter(
            "sie_idle_evictions", "Models unloaded because nobody used them", model, registry=self._registry
        )
        source = ("source",)
        self._fetched = Counter("sie_weights_fetched_bytes", "Bytes of models fetched", source, registry=self._registry)
        self._fetching = Histogram(
            "sie_weights_fetch_seconds",
            "Time to fetch a model",
            source,
            buckets=FETCH_SECONDS,
            registry=self._registry,
        )
        for kind in SOURCES:
            self._fetched.labels(kind)
        self._evicted = Counter(
            "sie_weights_evicted_bytes", "Bytes of models deleted from the local cache", registry=self._registry
        )

    def watch(self, statuses: Statuses, memory: Memory, device: str) -> None:
        """Read queue depths, states and memory from here at each scrape."""
        self._registry.register(_Models(statuses, memory, device))
        self._registry.register(_FromZero(tuple(self._oom.values()), statuses))

    def on_oom(self, model: str, event: OomEvent) -> None:
        """Count a step of a batch's rescue."""
        self._oom[event].labels(model).inc()

    def on_idle(self, model: str) -> None:
        """Count a model that nobody used."""
        self._idle.labels(model).inc()

    def on_request(self, record: RequestRecord) -> None:
        """Count one request."""
        model = record.model or OTHER
        self._requests.labels(model, record.endpoint, record.outcome, str(record.status)).inc()
        if record.status == HTTPStatus.OK:  # refusals take no time worth a histogram
            for phase, seconds in record.phases.items():
                self._duration.labels(model, record.endpoint, phase).observe(seconds)

    def on_batch(self, record: BatchRecord) -> None:
        """Count one batch."""
        self._batch_size.labels(record.model).observe(record.items)
        self._batch_tokens.labels(record.model).observe(record.tokens)
        self._tokens.labels(record.model).inc(record.tokens)

    def on_fetched(self, fetched: FetchRecord) -> None:
        """Count what came of one model, and how long it took if it is all of it; from any thread."""
        self._fetched.labels(fetched.kind).inc(fetched.size)
        if fetched.is_complete:
            self._fetching.labels(fetched.kind).observe(fetched.seconds)

    def on_evicted(self, size: int) -> None:
        """Count one model deleted from the local cache; from any thread."""
        self._evicted.inc(size)

    def render(self) -> tuple[bytes, str]:
        """The exposition and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Models(Collector):
    def __init__(self, statuses: Statuses, memory: Memory, device: str) -> None:
        self._statuses = statuses
        self._memory = memory
        self._device = device

    def collect(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily("sie_queue_depth", "Items accepted and not answered yet", labels=("model",))
        place = ("model", "device")
        loaded = GaugeMetricFamily("sie_model_loaded", "1 when the model is loaded", labels=place)
        held = GaugeMetricFamily("sie_model_memory_bytes", "What the model's weights take", labels=place)
        for model in self._statuses():
            depth.add_metric((model.name,), model.queue_depth)
            loaded.add_metric((model.name, self._device), float(model.state == "loaded"))
            held.add_metric((model.name, self._device), model.memory_bytes)
        return depth, loaded, held, *self._totals()

    def _totals(self) -> Iterable[Metric]:
        reading = self._memory()
        if reading is not None:
            yield GaugeMetricFamily("sie_memory_used_bytes", "Memory in use on the device", reading.used_bytes)
            yield GaugeMetricFamily("sie_memory_limit_bytes", "Memory of the device", reading.limit_bytes)

    def describe(self) -> Iterable[Metric]:
        return ()


class _FromZero(Collector):
    """Counters by model, 0 for each model that is in use: `increase` does not see a series that begins with 1."""

    def __init__(self, counters: Collection[Counter], statuses: Statuses) -> None:
        self._counters = counters
        self._statuses = statuses

    def collect(self) -> Iterable[Metric]:
        models = {model.name for model in self._statuses()}
        for counter in self._counters:
            for family in counter.collect():
                for model in sorted(models - {sample.labels["model"] for sample in family.samples}):
                    family.add_sample(f"{family.name}_total", {"model": model}, 0.0)
                yield family

    def describe(self) -> Iterable[Metric]:
        return ()
