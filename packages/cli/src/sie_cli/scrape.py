"""From the routers' `/metrics` to the numbers that scale a pool. In Kubernetes, Prometheus and a query do this.

Facts that every router repeats (unmet demand, a worker's queue, what resource pools reserve) are combined with `max`,
facts of one router (requests it sent) with a sum: the same combination as in the chart's queries.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sie_cli.scaler import Reading, Trigger, query_value
from sie_protocol.headers import METRICS

DEMAND = "sie_router_pending_demand"
QUEUE = "sie_router_worker_queue_depth"
ACTIVITY = "sie_router_recent_requests"
RESERVED = "sie_router_active_lease_gpus"
WARM = "sie_router_warm_floor_workers"
DEFAULT_POOL = "default"  # every worker that no resource pool reserves
TIMEOUT_S = 2.0

Group = tuple[str, str]  # machine profile, bundle


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one router told.

    `demand`: group → pool → 0 or 1. `queue`: group → worker → items. `activity`: group → requests. `reserved` and
    `warm`: group → workers that resource pools reserve, and that they want at any time.
    """

    demand: Mapping[Group, Mapping[str, float]] = field(default_factory=dict)
    queue: Mapping[Group, Mapping[str, float]] = field(default_factory=dict)
    activity: Mapping[Group, float] = field(default_factory=dict)
    reserved: Mapping[Group, float] = field(default_factory=dict)
    warm: Mapping[Group, float] = field(default_factory=dict)


def parse(text: str) -> Scrape:
    """Read one answer of `/metrics`.

    Raises:
        ValueError: it is not the Prometheus text format.
    """
    demand: dict[Group, dict[str, float]] = {}
    queue: dict[Group, dict[str, float]] = {}
    single: dict[str, dict[Group, float]] = {ACTIVITY: {}, RESERVED: {}, WARM: {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            group = (labels.get("machine_profile", ""), labels.get("bundle", ""))
            if sample.name == DEMAND:
                demand.setdefault(group, {})[labels.get("pool", "")] = sample.value
            elif sample.name == QUEUE:
                queue.setdefault(group, {})[labels.get("worker", "")] = sample.value
            elif sample.name in single:
                single[sample.name][group] = sample.value
    return Scrape(demand, queue, single[ACTIVITY], single[RESERVED], single[WARM])


def read(scrapes: Iterable[Scrape | None], group: Group, triggers: Sequence[Trigger]) -> tuple[Reading, ...]:
    """The readings of one pool from all routers' scrapes; None stands for a router that could not be read.

    Routers export the demand of every configured group from their start, 0 included. When no router has it, nothing is
    known of the group and every reading is a failure: an outage must not look like an idle pool.
    """
    known = [scrape for scrape in scrapes if scrape is not None and group in scrape.demand]
    if not known:
        return tuple(Reading(trigger, None) for trigger in triggers)
    values = {
        "demand": _sum_of_max(scrape.demand[group] for scrape in known),
        "queue": _sum_of_max(scrape.queue.get(group, {}) for scrape in known),
        "activity": sum(scrape.activity.get(group, 0.0) for scrape in known),
        "reserved": _reserved(known, group),
        "warm": max(scrape.warm.get(group, 0.0) for scrape in known),
    }
    return tuple(
        Reading(trigger, query_value([values[trigger.name]], ignore_null_values=False)) for trigger in triggers
    )


def _reserved(known: Sequence[Scrape], group: Group) -> float:
    """Reserved workers, and one for everybody else who waits: a group reserved to the last worker has to grow."""
    reserved = max(scrape.reserved.get(group, 0.0) for scrape in known)
    others = max(scrape.demand[group].get(DEFAULT_POOL, 0.0) for scrape in known)
    return reserved + others if reserved else 0.0


def _sum_of_max(tables: Iterable[Mapping[str, float]]) -> float:
    highest: dict[str, float] = {}
    for table in tables:
        for key, value in table.items():
            highest[key] = max(value, highest.get(key, value))
    return sum(highest.values())


async def scrape(client: httpx.AsyncClient, url: str) -> Scrape | None:
    """Ask one router; None when it does not answer, or not with metrics."""
    try:
        response = await client.get(url + METRICS, timeout=TIMEOUT_S)
        response.raise_for_status()
        return parse(response.text)
    except (httpx.HTTPError, ValueError):
        return None
