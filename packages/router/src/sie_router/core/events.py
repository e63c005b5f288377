"""What can happen to a cluster, and what it makes of the fleet. A log of events replays to the same fleet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, assert_never

from sie_protocol.catalog import Catalog
from sie_protocol.status import STALE_AFTER_S, ModelFailure, ModelStatus, WorkerStatus
from sie_router.core.catalog import known_models
from sie_router.core.demand import Arrival, missed, pruned, unmet
from sie_router.core.fleet import OTHER, Fleet, Group, Source, Worker
from sie_router.core.health import HEALTHY, Health, awaited, weight
from sie_router.core.index import reindexed
from sie_router.core.pools import Pool
from sie_router.core.startups import with_startups

MAX_NAME: Final = 128
MAX_ORDINAL_DIGITS: Final = 6  # more are a hash that happens to have no letters
LATE_S: Final = 120.0  # the slowest start with a large model takes as long; who connects and needs more is stuck


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker sent a status frame."""

    url: str
    status: WorkerStatus


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker cannot be reached; it is still expected to come back under this URL."""

    url: str


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker does not exist any more."""

    url: str


@dataclass(frozen=True, slots=True)
class WorkersListed:
    """All workers that there were at the start had their chance to tell of themselves."""


@dataclass(frozen=True, slots=True)
class WorkerJudged:
    """The breaker of a worker changed its phase."""

    url: str
    health: Health


@dataclass(frozen=True, slots=True)
class Missed:
    """A request found nobody in this group; the demand counts for `ttl_s` seconds."""

    group: Group
    pool: str
    ttl_s: float
    arrival: Arrival = Arrival.NEW


@dataclass(frozen=True, slots=True)
class PoolPut:
    """A pool was made, changed or renewed."""

    pool: Pool


@dataclass(frozen=True, slots=True)
class PoolGone:
    """A pool does not exist any more."""

    name: str


@dataclass(frozen=True, slots=True)
class PoolsListed:
    """These pools exist, and no others."""

    pools: tuple[Pool, ...]


@dataclass(frozen=True, slots=True)
class CatalogPut:
    """The model catalogue was read."""

    catalog: Catalog


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: the silent become stale, old wishes expire."""


WorkerEvent = WorkerSeen | WorkerLost | WorkerGone | WorkerJudged
PoolEvent = PoolPut | PoolGone | PoolsListed
Event = WorkerEvent | WorkersListed | PoolEvent | Missed | CatalogPut | Tick


def apply(fleet: Fleet, event: Event, now: float) -> Fleet:
    """The fleet after an event at monotonic time `now` in seconds."""
    match event:
        case WorkerSeen() | WorkerLost() | WorkerGone() | WorkerJudged():
            return _after_worker(fleet, event, now)
        case PoolPut() | PoolGone() | PoolsListed():
            after = _with_pools(fleet, _pools_after(fleet, event))
            return _heard(after, Source.POOLS) if isinstance(event, PoolsListed) else after
        case WorkersListed():
            return _heard(fleet, Source.WORKERS)
        case Missed(group, pool, ttl_s, arrival):
            return replace(fleet, demand=missed(fleet, group, pool, now, ttl_s, arrival))
        case CatalogPut(catalog):
            return replace(fleet, models=known_models(catalog))
        case Tick():
            return _ticked(fleet, now)
        case _:
            assert_never(event)


def _heard(fleet: Fleet, source: Source) -> Fleet:
    return replace(fleet, unheard=fleet.unheard - {source}) if source in fleet.unheard else fleet


def _after_worker(fleet: Fleet, event: WorkerEvent, now: float) -> Fleet:
    match event:
        case WorkerSeen(url, status):
            return _with_worker(fleet, _worker(fleet, url, status, now), now)
        case WorkerLost(url) | WorkerJudged(url):
            known = fleet.workers.get(url)
            return fleet if known is None else _with_worker(fleet, _amended(known, event, now), now)
        case WorkerGone(url):
            rest = {each: worker for each, worker in fleet.workers.items() if each != url}
            return fleet if len(rest) == len(fleet.workers) else _without_met(reindexed(replace(fleet, workers=rest)))
        case _:
            assert_never(event)


def _amended(worker: Worker, event: WorkerLost | WorkerJudged, now: float) -> Worker:
    if isinstance(event, WorkerJudged):
        return replace(worker, health=event.health)
    since, is_late = _awaited(worker, worker.name, now)
    return replace(worker, is_connected=False, awaited_since=since, is_late=is_late)


def _awaited(known: Worker | None, name: str, now: float) -> tuple[float, bool]:
    """Since when a worker has been awaited that serves nobody at `now`, and whether that is too long already."""
    if known is None or known.name != name or not known.is_awaited:
        return now, False
    return known.awaited_since, known.is_late


def _with_worker(fleet: Fleet, worker: Worker, now: float) -> Fleet:
    before = fleet.workers.get(worker.url)
    if before is not None and worker.is_trusted and not before.is_trusted:
        worker = replace(worker, serving_since=now, weight=weight(0.0))
    after = replace(fleet, workers={**fleet.workers, worker.url: worker})
    if before is not None and before.membership == worker.membership:
        return after
    return _without_met(with_startups(reindexed(after), now))


def _pools_after(fleet: Fleet, event: PoolEvent) -> Mapping[str, Pool]:
    match event:
        case PoolPut(pool):
            # A store's news may arrive after what this router wrote itself.
            before = fleet.pools.get(pool.name)
            is_old = before is not None and pool.is_before(before)
            return fleet.pools if is_old else {**fleet.pools, pool.name: pool}
        case PoolGone(name):
            return {each: pool for each, pool in fleet.pools.items() if each != name}
        case PoolsListed(pools):
            return {pool.name: pool for pool in pools}
        case _:
            assert_never(event)


def _with_pools(fleet: Fleet, pools: Mapping[str, Pool]) -> Fleet:
    after = replace(fleet, pools=pools)
    return after if _reservations(after) == _reservations(fleet) else _without_met(reindexed(after))


def _reservations(fleet: Fleet) -> Mapping[str, object]:
    return {name: pool.reservation for name, pool in fleet.pools.items()}


def _ticked(fleet: Fleet, now: float) -> Fleet:
    changed = {url: after for url, worker in fleet.workers.items() if (after := _aged(worker, now)) is not worker}
    if changed:
        before, fleet = fleet, replace(fleet, workers={**fleet.workers, **changed})
        if any(worker.membership != before.workers[url].membership for url, worker in changed.items()):
            fleet = _without_met(reindexed(fleet))
    demand = pruned(fleet, now)
    return fleet if demand is fleet.demand else replace(fleet, demand=demand)


def _without_met(fleet: Fleet) -> Fleet:
    demand = unmet(fleet)
    return fleet if demand is fleet.demand else replace(fleet, demand=demand)


def _aged(worker: Worker, now: float) -> Worker:
    """The worker after some time without news; itself where time makes no difference."""
    is_stale = worker.is_stale or now - worker.seen_at > STALE_AFTER_S
    health = awaited(worker.health, now)
    share = weight(now - worker.serving_since) if worker.weight < 1 else 1.0
    is_late = worker.is_late or (worker.is_awaited and now - worker.awaited_since > LATE_S)
    if (is_stale, share, is_late) == (worker.is_stale, worker.weight, worker.is_late) and health is worker.health:
        return worker
    return replace(worker, is_stale=is_stale, health=health, weight=share, is_late=is_late)


def _worker(fleet: Fleet, url: str, status: WorkerStatus, now: float) -> Worker:
    name = _plain(status.name) or url
    known = fleet.workers.get(url)
    said, bundle = _plain(status.machine_profile), _plain(status.bundle)
    profile = fleet.index.profiles.get(said.lower(), said)
    loaded = {name.lower() for name in status.loaded_models} | _in_state(status.models, "loaded")
    since, is_late = _awaited(known, name, now)
    return Worker(
        url=url,
        name=name,
        profile=profile,
        bundle=bundle,
        group=fleet.index.configured.get((profile.lower(), bundle.lower()), OTHER),
        seen_at=now,
        is_ready=status.ready,
        is_draining=status.draining,
        awaited_since=since,
        is_late=is_late,
        queue_depth=max(0, status.queue_depth),
        loaded=frozenset(loaded),
        loading=_in_state(status.models, "loading"),
        failed={name: model.failure or ModelFailure() for model, name in _names(status.models, "failed")},
        loaded_models=status.loaded_models,
        gpu_count=max(0, status.gpu_count),
        memory_used_bytes=sum(max(0, gpu.memory_used_bytes) for gpu in status.gpus),
        memory_total_bytes=sum(max(0, gpu.memory_total_bytes) for gpu in status.gpus),
        bundle_config_hash=status.bundle_config_hash[:MAX_NAME],
        ordinal=ordinal(name),
        health=HEALTHY if known is None or known.name != name else known.health,
        weight=1.0 if known is None else known.weight,
        serving_since=now if known is None else known.serving_since,
    )


def ordinal(name: str) -> int:
    """The number of a pod within its StatefulSet, 3 of `worker-l4-3`; 0 for names without one."""
    _, dash, digits = name.rpartition("-")
    return int(digits) if dash and digits.isdecimal() and len(digits) <= MAX_ORDINAL_DIGITS else 0


def _plain(text: str) -> str:
    """The text as it may stand in a header: visible ASCII, at most `MAX_NAME` characters."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text[:MAX_NAME]
    return "".join(each for each in text if "!" <= each <= "~")[:MAX_NAME]


def _in_state(models: tuple[ModelStatus, ...], state: str) -> frozenset[str]:
    """Names of the models in a state, and of the profiles that run on their weights."""
    return frozenset(name for _, name in _names(models, state))


def _names(models: tuple[ModelStatus, ...], state: str) -> Iterator[tuple[ModelStatus, str]]:
    found = (model for model in models if model.state == state)
    return ((model, name.lower()) for model in found for name in (model.name, *model.aliases))
