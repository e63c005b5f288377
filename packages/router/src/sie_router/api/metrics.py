"""The router's metrics: plain counters on the hot path, everything else read from the snapshot at scrape time.

A scrape changes nothing. Label values come from configuration, never from callers; what nobody configured is `other`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from itertools import accumulate
from operator import itemgetter
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sie_protocol.headers import METRICS
from sie_router.core.demand import reserved, unserved, wanted, warm
from sie_router.core.fleet import OTHER, Fleet, Group, Worker
from sie_router.core.pools import DEFAULT_POOL
from sie_router.data.inflight import Inflight
from sie_router.data.outcome import Outcome

BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
MAX_MODEL_SERIES: Final = 1000
_LABELS: Final = ("machine_profile", "bundle")


class Task(StrEnum):
    """What runs as long as the router does; label values."""

    WORKERS = "workers"
    POOLS = "pools"
    REAPER = "reaper"
    CLOCK = "clock"
    CATALOGUE = "catalogue"


class Latencies:
    """One histogram: counts per bucket, the last one beyond all bounds, and the sum in seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, latency_s: float) -> None:
        """Count one request."""
        self.counts[bisect_left(BUCKETS_S, latency_s)] += 1
        self.total_s += latency_s

    def cumulative(self) -> list[tuple[str, float]]:
        """The pairs Prometheus wants: upper bound, requests up to it."""
        bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, accumulate(self.counts), strict=True)]


class Counters:
    """What happened since the process started; keys are bounded by configuration.

    Only `count` writes, and of `restarts`, by task, whoever supervises the tasks.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int, Group], int] = {}
        self.latencies: dict[tuple[str, str], Latencies] = {}
        self.provisioning: dict[str, int] = {}
        self.restarts: dict[str, int] = {task.value: 0 for task in Task}

    def count(self, outcome: Outcome) -> None:
        """Count one finished request, whatever became of it."""
        key = (outcome.operation, outcome.status, outcome.group)
        self.requests[key] = self.requests.get(key, 0) + 1
        series = (outcome.operation, outcome.group.profile)
        latencies = self.latencies.get(series)
        if latencies is None:
            latencies = self.latencies[series] = Latencies()
        latencies.add(outcome.latency_s)
        if outcome.provisioning:
            profile = outcome.group.profile
            self.provisioning[profile] = self.provisioning.get(profile, 0) + 1


class RouterCollector(Collector):
    """Reads counters and snapshot; owns nothing."""

    def __init__(
        self,
        counters: Counters,
        snapshot: Callable[[], Fleet],
        inflight: Inflight,
        ejections: Mapping[Group, int],
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
    ) -> None:
        self._ejections = ejections
        self._counters = counters
        self._snapshot = snapshot
        self._inflight = inflight
        self._clock = clock
        self._unix_clock = unix_clock

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape, from one snapshot."""
        fleet = self._snapshot()
        yield from self._traffic(fleet)
        yield from self._groups(fleet)
        yield from self._leases(fleet)
        yield from _workers(fleet)
        yield _mismatches(fleet)
        yield _models(fleet)

    def _traffic(self, fleet: Fleet) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "sie_router_requests", "Answered requests, refusals included", labels=("endpoint", "status", *_LABELS)
        )
        for (endpoint, status, group), count in self._counters.requests.items():
            requests.add_metric((endpoint, str(status), group.profile, group.bundle), count)
        yield requests
        latency = HistogramMetricFamily(
            "sie_router_request_latency_seconds",
            "From the head of a request to the end of its answer",
            labels=("endpoint", "machine_profile"),
        )
        for series, latencies in self._counters.latencies.items():
            latency.add_metric(series, latencies.cumulative(), latencies.total_s)
        yield latency
        provisioning = CounterMetricFamily(
            "sie_router_provisioning_responses", "Answers that sent a client away to wait", labels=("machine_profile",)
        )
        counts = dict.fromkeys((group.profile for group in fleet.configured), 0) | self._counters.provisioning
        for profile, count in counts.items():
            provisioning.add_metric((profile,), count)
        yield provisioning
        restarts = CounterMetricFamily(
            "sie_router_task_restarts", "Tasks of the router that ended and were begun again", labels=("task",)
        )
        for task, count in self._counters.restarts.items():
            restarts.add_metric((task,), count)
        yield restarts

    def _groups(self, fleet: Fleet) -> Iterator[Metric]:
        demand = GaugeMetricFamily(
            "sie_router_pending_demand",
            "1 while a pool waits for the first worker of a group",
            labels=(*_LABELS, "pool"),
        )
        for (group, pool), value in wanted(fleet, self._clock()).items():
            demand.add_metric((group.profile, group.bundle, pool), value)
        yield demand
        burst = GaugeMetricFamily(
            "sie_router_unserved_requests",
            "Most requests without a pool that came to this router at once and found no worker of a group",
            labels=_LABELS,
        )
        for group, count in unserved(fleet, self._clock()).items():
            burst.add_metric((group.profile, group.bundle), count)
        yield burst
        recent = GaugeMetricFamily(
            "sie_router_recent_requests",
            "Requests this router sent to a group in the last 60 s, plus those in flight",
            labels=(*_LABELS, "pool"),
        )
        nothing = {(group, DEFAULT_POOL): 0 for group in (*fleet.configured, OTHER)}
        for (group, pool), count in {**nothing, **self._inflight.recent()}.items():
            recent.add_metric((group.profile, group.bundle, pool), count)
        yield recent
        ejections = CounterMetricFamily(
            "sie_router_ejections", "Times a worker of a group failed so often that its breaker opened", labels=_LABELS
        )
        for group in (*fleet.configured, OTHER):
            ejections.add_metric((group.profile, group.bundle), self._ejections.get(group, 0))
        yield ejections

    def _leases(self, fleet: Fleet) -> Iterator[Metric]:
        now = self._unix_clock()
        families = (
            ("sie_router_active_lease_gpus", "Workers that pools with a running lease reserve", reserved(fleet, now)),
            ("sie_router_warm_floor_workers", "Workers that pools want to have at any time", warm(fleet, now)),
        )
        for name, text, counts in families:
            family = GaugeMetricFamily(name, text, labels=_LABELS)
            for group, count in counts.items():
                family.add_metric((group.profile, group.bundle), count)
            yield family
        pools = GaugeMetricFamily("sie_router_pools", "Pools that exist, without the default one")
        pools.add_metric((), len(fleet.pools))
        yield pools


def _workers(fleet: Fleet) -> Iterator[Metric]:
    labels = ("worker", *_LABELS)
    depth = GaugeMetricFamily(
        "sie_router_worker_queue_depth",
        "Items a connected worker has accepted and not answered, and the pool it serves",
        labels=(*labels, "pool"),
    )
    memory = GaugeMetricFamily(
        "sie_router_worker_memory_used_bytes", "Device memory a connected worker uses", labels=labels
    )
    breaker = GaugeMetricFamily(
        "sie_router_worker_breaker_open", "1 while a connected worker is ejected because it fails", labels=labels
    )
    for name, worker in _connected(fleet):
        values = (name, worker.group.profile, worker.group.bundle)
        depth.add_metric((*values, fleet.pool_of(worker)), worker.queue_depth)
        memory.add_metric(values, worker.memory_used_bytes)
        breaker.add_metric(values, worker.health.is_ejected)
    yield depth
    yield breaker
    yield memory
    healthy = sum(worker.is_trusted for worker in fleet.workers.values())
    workers = GaugeMetricFamily("sie_router_workers", "Known workers", labels=("status",))
    workers.add_metric(("healthy",), healthy)
    workers.add_metric(("unhealthy",), len(fleet.workers) - healthy)
    yield workers


def _connected(fleet: Fleet) -> list[tuple[str, Worker]]:
    """Connected workers by label: the name, with the address where several have it, so that none hides another.

    Those that are not connected count as well: all routers must call a worker the same.
    """
    count = Counter(worker.name for worker in fleet.workers.values())
    connected = [worker for worker in fleet.workers.values() if worker.is_connected]
    labels = (each.name if count[each.name] == 1 else f"{each.name}@{_address(each)}" for each in connected)
    return sorted(zip(labels, connected, strict=True), key=itemgetter(0))


def _address(worker: Worker) -> str:
    return worker.url.partition("://")[2]


def _mismatches(fleet: Fleet) -> Metric:
    family = GaugeMetricFamily(
        "sie_router_worker_config_mismatch",
        "1 while a connected worker runs another configuration of its bundle than this router's catalogue has",
        labels=("worker", *_LABELS),
    )
    for name, worker in _connected(fleet):
        own, said = fleet.models.config_hash(worker.bundle), worker.bundle_config_hash
        family.add_metric((name, worker.group.profile, worker.group.bundle), bool(own and said and own != said))
    return family


def _models(fleet: Fleet) -> Metric:
    family = GaugeMetricFamily(
        "sie_router_model_workers", "Healthy workers that have a model loaded", labels=("model",)
    )
    listed = {model.sie_id.lower(): model.sie_id for model, _ in fleet.models.listed()}
    counts: dict[str, int] = {}
    for worker in fleet.workers.values():
        for name in worker.loaded_models if worker.is_trusted else ():
            label = listed.get(name.lower(), "other") if listed else name
            label = label if label in counts or len(counts) < MAX_MODEL_SERIES else "other"
            counts[label] = counts.get(label, 0) + 1
    for label, count in sorted(counts.items()):
        family.add_metric((label,), count)
    return family


def metric_routes(*collectors: Collector) -> APIRouter:
    """`/metrics`, with a registry of its own."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    routes = APIRouter(tags=["metrics"])

    @routes.get(METRICS)
    async def metrics(request: Request) -> Response:
        """Tell everything in the Prometheus text format, or OpenMetrics where it is asked for."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": media_type})

    return routes
