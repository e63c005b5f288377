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
UNSERVED = "sie_router_unserved_requests"
QUEUE = "sie_router_worker_queue_depth"
ACTIVITY = "sie_router_recent_requests"
RESERVED = "sie_router_active_lease_gpus"
WARM = "sie_router_warm_floor_workers"
SHARED = "shared"  # the part of `QUEUE` that is not reserved
DEFAULT_POOL = "default"  # every worker that no resource pool reserves
TIMEOUT_S = 2.0

Group = tuple[str, str]  # machine profile, bundle


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one router told.

    `demand`: group → pool → 0 or 1. `unserved`: group → requests that came at once and found nobody. `queue`: group →
    worker → items; `shared` are those of unreserved workers. `activity`: group → pool → requests. `reserved` and
    `warm`: group → workers that resource pools reserve, and that they want at any time.
    """

    demand: Mapping[Group, Mapping[str, float]] = field(default_factory=dict)
    unserved: Mapping[Group, float] = field(default_factory=dict)
    queue: Mapping[Group, Mapping[str, float]] = field(default_factory=dict)
    shared: Mapping[Group, Mapping[str, float]] = field(default_factory=dict)
    activity: Mapping[Group, Mapping[str, float]] = field(default_factory=dict)
    reserved: Mapping[Group, float] = field(default_factory=dict)
    warm: Mapping[Group, float] = field(default_factory=dict)


def parse(text: str) -> Scrape:
    """Read one answer of `/metrics`.

    Raises:
        ValueError: it is not the Prometheus text format.
    """
    nested: dict[str, dict[Group, dict[str, float]]] = {DEMAND: {}, ACTIVITY: {}, QUEUE: {}, SHARED: {}}
    single: dict[str, dict[Group, float]] = {UNSERVED: {}, RESERVED: {}, WARM: {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            name, group = sample.name, (labels.get("machine_profile", ""), labels.get("bundle", ""))
            pool = labels.get("pool", DEFAULT_POOL)
            if name == QUEUE:
                worker = labels.get("worker", "")
                for table in (QUEUE, SHARED) if pool == DEFAULT_POOL else (QUEUE,):
                    nested[table].setdefault(group, {})[worker] = sample.value
            elif name in nested:
                nested[name].setdefault(group, {})[pool] = sample.value
            elif name in single:
                single[name][group] = sample.value
    return Scrape(
        nested[DEMAND],
        single[UNSERVED],
        nested[QUEUE],
        nested[SHARED],
        nested[ACTIVITY],
        single[RESERVED],
        single[WARM],
    )


def read(scrapes: Iterable[Scrape | None], group: Group, triggers: Sequence[Trigger]) -> tuple[Reading, ...]:
    """The readings of one pool from all routers' scrapes; None stands for a router that could not be read.

    Routers export the demand of every configured group from their start, 0 included. When no router has it, nothing is
    known of the group and every reading is a failure: an outage must not look like an idle pool.
    """
    known = [scrape for scrape in scrapes if scrape is not None and group in scrape.demand]
    if not known:
        return tuple(Reading(trigger, None) for trigger in triggers)
    reserved = max(scrape.reserved.get(group, 0.0) for scrape in known)
    waiting = _sum_of_max(scrape.shared.get(group, {}) for scrape in known)
    waiting += sum(scrape.unserved.get(group, 0.0) for scrape in known)
    thresholds = {trigger.name: trigger.threshold for trigger in triggers}
    values = {
        "demand": _sum_of_max(scrape.demand[group] for scrape in known),
        # Reserved workers do nothing for those who wait: as many as there are come on top.
        "queue": waiting + reserved * thresholds.get("queue", 0.0),
        "activity": sum(sum(scrape.activity.get(group, {}).values()) for scrape in known),
        "reserved": reserved + _others(known, group) if reserved else 0.0,
        "warm": max(scrape.warm.get(group, 0.0) for scrape in known),
    }
    return tuple(
        Reading(trigger, query_value([values[trigger.name]], ignore_null_values=False)) for trigger in triggers
    )


def _others(known: Sequence[Scrape], group: Group) -> float:
    """1 while somebody asks without a reservation: a group reserved to the last worker has to grow."""
    demand = max(scrape.demand[group].get(DEFAULT_POOL, 0.0) for scrape in known)
    activity = sum(scrape.activity.get(group, {}).get(DEFAULT_POOL, 0.0) for scrape in known)
    return min(1.0, demand + activity)


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
