"""Metrics of requests that were sent again, or that wait at their client's wish."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sie_router.data.parked import ParkedRequests
from sie_router.data.retries import RetryBudget


class FlowCollector(Collector):
    """Reads what the data plane counts; owns nothing."""

    def __init__(self, parked: ParkedRequests, retries: RetryBudget) -> None:
        self._parked = parked
        self._retries = retries

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape."""
        now = GaugeMetricFamily(
            "sie_router_waiting_requests", "Requests that wait for a worker, as their clients asked"
        )
        now.add_metric((), self._parked.requests)
        yield now
        waits = CounterMetricFamily(
            "sie_router_waits", "Requests whose client asked to wait, by how the wait ended", labels=("result",)
        )
        for result, count in self._parked.ended.items():
            waits.add_metric((result,), count)
        yield waits
        retries = CounterMetricFamily(
            "sie_router_retries", "Requests to be sent to another worker as well", labels=("result",)
        )
        for result, count in (("sent", self._retries.taken), ("refused", self._retries.refused)):
            retries.add_metric((result,), count)
        yield retries
