"""Who gets a request. Knows nothing of HTTP, clocks or Kubernetes; randomness comes in as a number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.target import ModelRef
from sie_router.core.catalog import Servable
from sie_router.core.fleet import DEFAULT_POOL, Fleet, Group, Ready, Worker
from sie_router.core.score import SPILL_SLACK, load, pick, spill_bound

SPOT_SUFFIX: Final = "-spot"


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request wants. None means: the caller did not say.

    `avoid` are URLs that already failed this request; with `loaded_only`, nobody else than a holder of the model will
    do (a second worker that would have to load it first is no help).
    """

    model: ModelRef
    profile: str | None = None
    pool: str | None = None
    avoid: tuple[str, ...] = ()
    loaded_only: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """Send it to this worker, under the model's canonical id."""

    worker: Worker
    model_id: str


@dataclass(frozen=True, slots=True)
class Provision:
    """Nobody can take it now; a worker of this group could. Only a configured group may create demand."""

    group: Group
    is_configured: bool
    model_id: str


@dataclass(frozen=True, slots=True)
class Reject:
    """It can never be served as asked."""

    code: ErrorCode
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)


Decision = Forward | Provision | Reject


def decide(fleet: Fleet, ask: Ask, inflight: Mapping[str, int], draw: float) -> Decision:
    """Choose a worker for a request, or say what is missing.

    Cost does not grow with the fleet, except for retries (`avoid`). `draw` is uniform in [0, 1).
    """
    try:
        model = fleet.models.resolve(ask.model)
    except Problem as problem:
        return Reject(problem.code, problem.message, problem.details)
    if ask.pool is not None and ask.pool.lower() != DEFAULT_POOL:
        return Reject(ErrorCode.POOL_NOT_FOUND, f"pool '{ask.pool}' does not exist; the pools are: {DEFAULT_POOL}")
    profile = None if ask.profile is None else real_profile(fleet, ask.profile)
    if profile is None and ask.profile is not None and (fleet.profiles or fleet.workers):
        return _not_configured(fleet, f"machine profile '{ask.profile}' is not configured")
    for bundle in model.bundles:
        ready = fleet.index.by_bundle.get(bundle) if profile is None else fleet.index.by_group.get((profile, bundle))
        url = None if ready is None else _choose(fleet, ready, model.key, ask, inflight, draw)
        if url is not None:
            return Forward(fleet.workers[url], model.model_id)
    return _provision(fleet, ask.profile if profile is None else profile, model)


def real_profile(fleet: Fleet, asked: str) -> str | None:
    """The real profile, in lower case, that a caller's spelling means; None when there is none.

    A plain name stands for its spot variant only where the plain profile itself does not exist.
    """
    key = asked.lower()
    if key in fleet.index.profiles:
        return key
    return key + SPOT_SUFFIX if key + SPOT_SUFFIX in fleet.index.profiles else None


def _choose(fleet: Fleet, ready: Ready, model: str, ask: Ask, inflight: Mapping[str, int], draw: float) -> str | None:
    """Affinity first, then load.

    A worker that has the model keeps it until it is busier than `spill_bound` of another one; while a second worker is
    loading the model already, nobody else is made to. Without any holder those that are loading it come first.
    """
    loaded = _without(ready.loaded.get(model, ()), ask.avoid)
    if ask.loaded_only:
        return pick(loaded, fleet.workers, inflight, draw) if loaded else None
    loading = _without(ready.loading.get(model, ()), ask.avoid)
    everyone = _without(ready.urls, ask.avoid)
    if not everyone:
        return None
    if not loaded:
        return pick(loading or everyone, fleet.workers, inflight, draw)
    holder = pick(loaded, fleet.workers, inflight, draw)
    busy = load(fleet.workers[holder], inflight)
    if busy <= SPILL_SLACK or loading or len(loaded) == len(everyone):
        return holder
    other = pick(everyone, fleet.workers, inflight, draw)
    return other if busy > spill_bound(load(fleet.workers[other], inflight)) else holder


def _without(urls: tuple[str, ...], avoid: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(url for url in urls if url not in avoid) if avoid else urls


def _provision(fleet: Fleet, profile: str | None, model: Servable) -> Decision:
    """What should be started: the first configured group that fits."""
    for group in fleet.configured:
        if group.key[1] in model.bundles and profile in (None, group.key[0]):
            return Provision(group, is_configured=True, model_id=model.model_id)
    if fleet.configured:
        wanted = f"bundle '{model.bundles[0]}'" + (f" on machine profile '{profile}'" if profile else "")
        return _not_configured(fleet, f"no workers are configured for {wanted}")
    return Provision(Group(profile or "", model.bundles[0]), is_configured=False, model_id=model.model_id)


def _not_configured(fleet: Fleet, what: str) -> Reject:
    profiles = list(fleet.profiles or fleet.index.profiles.values())
    groups = ", ".join(f"{group.profile}:{group.bundle}" for group in fleet.configured)
    known = f"machine profiles: {', '.join(profiles) or 'none'}" + (f"; groups: {groups}" if groups else "")
    return Reject(ErrorCode.GPU_NOT_CONFIGURED, f"{what}; configured {known}", {"configured_gpu_types": profiles})
