"""What can happen to a cluster, and what it makes of the fleet. A log of events replays to the same fleet."""

from dataclasses import dataclass, replace
from typing import Final, assert_never

from sie_protocol.catalog import Catalog
from sie_protocol.status import STALE_AFTER_S, ModelStatus, WorkerStatus
from sie_router.core.catalog import known_models
from sie_router.core.demand import missed, pruned
from sie_router.core.fleet import OTHER, Fleet, Group, Worker, build_index

MAX_NAME: Final = 128


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
class Missed:
    """A request found nobody in this group; the wish counts for `ttl_s` seconds."""

    group: Group
    pool: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class CatalogPut:
    """The model catalogue was read."""

    catalog: Catalog


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed: the silent become stale, old wishes expire."""


Event = WorkerSeen | WorkerLost | WorkerGone | Missed | CatalogPut | Tick


def apply(fleet: Fleet, event: Event, now: float) -> Fleet:
    """The fleet after an event at monotonic time `now` in seconds."""
    match event:
        case WorkerSeen(url, status):
            return _with_worker(fleet, _worker(fleet, url, status, now))
        case WorkerLost(url):
            known = fleet.workers.get(url)
            return fleet if known is None else _with_worker(fleet, replace(known, is_connected=False))
        case WorkerGone(url):
            rest = {each: worker for each, worker in fleet.workers.items() if each != url}
            return fleet if len(rest) == len(fleet.workers) else _reindexed(replace(fleet, workers=rest))
        case Missed(group, pool, ttl_s):
            return replace(fleet, demand=missed(fleet, group, pool, now + ttl_s))
        case CatalogPut(catalog):
            return replace(fleet, models=known_models(catalog))
        case Tick():
            return _ticked(fleet, now)
        case _:
            assert_never(event)


def _with_worker(fleet: Fleet, worker: Worker) -> Fleet:
    before = fleet.workers.get(worker.url)
    after = replace(fleet, workers={**fleet.workers, worker.url: worker})
    if before is not None and before.membership == worker.membership:
        return after
    indexed = _reindexed(after)
    if not worker.is_healthy:
        return indexed
    met = {wish: until for wish, until in indexed.demand.items() if not indexed.has_healthy(wish[0])}
    return indexed if len(met) == len(indexed.demand) else replace(indexed, demand=met)


def _ticked(fleet: Fleet, now: float) -> Fleet:
    silent = {
        url: replace(worker, is_stale=True)
        for url, worker in fleet.workers.items()
        if not worker.is_stale and now - worker.seen_at > STALE_AFTER_S
    }
    if silent:
        fleet = _reindexed(replace(fleet, workers={**fleet.workers, **silent}))
    demand = pruned(fleet, now)
    return fleet if demand is fleet.demand else replace(fleet, demand=demand)


def _reindexed(fleet: Fleet) -> Fleet:
    return replace(fleet, index=build_index(fleet.workers, fleet.configured, fleet.profiles))


def _worker(fleet: Fleet, url: str, status: WorkerStatus, now: float) -> Worker:
    said = _plain(status.machine_profile)
    profile = fleet.index.profiles.get(said.lower(), said)
    loaded = {name.lower() for name in status.loaded_models} | _in_state(status.models, "loaded")
    return Worker(
        url=url,
        name=_plain(status.name) or url,
        profile=profile,
        bundle=status.bundle,
        group=fleet.index.configured.get((profile.lower(), status.bundle.lower()), OTHER),
        seen_at=now,
        is_ready=status.ready,
        is_draining=status.draining,
        queue_depth=max(0, status.queue_depth),
        loaded=frozenset(loaded),
        loading=_in_state(status.models, "loading"),
        failed=_in_state(status.models, "failed"),
        loaded_models=status.loaded_models,
        gpu_count=status.gpu_count,
        memory_used_bytes=sum(gpu.memory_used_bytes for gpu in status.gpus),
        memory_total_bytes=sum(gpu.memory_total_bytes for gpu in status.gpus),
        bundle_config_hash=status.bundle_config_hash,
    )


def _plain(text: str) -> str:
    """The text as it may stand in a header: visible ASCII, at most `MAX_NAME` characters."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text[:MAX_NAME]
    return "".join(each for each in text if "!" <= each <= "~")[:MAX_NAME]


def _in_state(models: tuple[ModelStatus, ...], state: str) -> frozenset[str]:
    """Names of the models in a state, and of the profiles that run on their weights."""
    found = (model for model in models if model.state == state)
    return frozenset(name.lower() for model in found for name in (model.name, *model.aliases))
