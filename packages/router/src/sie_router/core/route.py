"""Who gets a request. Knows nothing of HTTP, clocks or Kubernetes; randomness comes in as a number.

Values that are made for every request are msgspec structs: made in a tenth of the time of a frozen dataclass.
"""

from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

import msgspec

from sie_protocol.errors import MAX_SHOWN, ErrorCode, Problem
from sie_protocol.target import ModelRef
from sie_router.core.assign import shares
from sie_router.core.catalog import Servable
from sie_router.core.fleet import Fleet, Group, Ready, Scope, Worker
from sie_router.core.pools import ANYONE, DEFAULT_POOL, Caller, Pool, known, pool_key
from sie_router.core.score import SPILL_SLACK, load, pick, spill_bound

SPOT_SUFFIX: Final = "-spot"


class Ask(msgspec.Struct, frozen=True):
    """What one request wants. None means: the caller did not say.

    `avoid` are URLs that already failed this request; with `loaded_only`, nobody else than a holder of the model will
    do (a second worker that would have to load it first is no help). `caller` must be allowed to use the pool.
    """

    model: ModelRef
    profile: str | None = None
    pool: str | None = None
    avoid: tuple[str, ...] = ()
    loaded_only: bool = False
    caller: Caller = ANYONE


class Forward(msgspec.Struct, frozen=True):
    """Send it to this worker of this pool, under the model's canonical id."""

    worker: Worker
    model_id: str
    pool: str = DEFAULT_POOL


class Provision(msgspec.Struct, frozen=True):
    """Nobody can take it now; another worker of this group, in this pool, could.

    Only a configured group may create demand. `reserved`: so many healthy workers of the group are there, for others.
    """

    group: Group
    is_configured: bool
    model_id: str
    pool: str = DEFAULT_POOL
    reserved: int = 0


class Reject(msgspec.Struct, frozen=True):
    """It can never be served as asked."""

    code: ErrorCode
    message: str
    details: Mapping[str, Any] = {}


Decision = Forward | Provision | Reject


class Plan(msgspec.Struct, frozen=True):
    """What a request may run on, before anybody is chosen: `scope` is its pool's workers, and it sees no others.

    `pool` is None for requests of the default pool. `profile` is in lower case; None: any.
    """

    model: Servable
    pool: Pool | None
    profile: str | None
    scope: Scope

    @property
    def pool_name(self) -> str:
        """The name of its pool."""
        return DEFAULT_POOL if self.pool is None else self.pool.name

    def candidates(self) -> Iterator[Ready]:
        """Healthy workers that could take it, by bundle, preferred first."""
        for bundle in self.model.bundles:
            by_bundle, by_group = self.scope.by_bundle, self.scope.by_group
            ready = by_bundle.get(bundle) if self.profile is None else by_group.get((self.profile, bundle))
            if ready is not None:
                yield ready


def decide(fleet: Fleet, ask: Ask, inflight: Mapping[str, int], draw: float) -> Decision:
    """Choose a worker for a request, or say what is missing.

    Cost does not grow with the fleet, except for retries (`avoid`). `draw` is uniform in [0, 1).
    """
    plan = make_plan(fleet, ask)
    if isinstance(plan, Reject):
        return plan
    for ready in plan.candidates():
        url = _choose(fleet, ready, plan.model, ask, inflight, draw)
        if url is not None:
            return Forward(fleet.workers[url], plan.model.model_id, plan.pool_name)
    return _provision(fleet, plan, ask)


def make_plan(fleet: Fleet, ask: Ask) -> Plan | Reject:
    """Resolve model, pool and machine profile. Cost does not grow with the fleet."""
    try:
        model = fleet.models.resolve(ask.model)
        if fleet.unheard:
            return _too_early(fleet)
        pool = _pool(fleet, ask)
    except Problem as problem:
        return Reject(problem.code, problem.message, problem.details)
    if pool is not None:
        profile = None if ask.profile is None else _spelled(ask.profile, {each.lower() for each in pool.gpus})
        if profile is None and ask.profile is not None:
            return _not_reserved(pool, f"machine profile '{ask.profile[:MAX_SHOWN]}'")
        return Plan(model, pool, profile, fleet.scope(pool.name))
    profile = None if ask.profile is None else real_profile(fleet, ask.profile)
    if profile is None and ask.profile is not None:
        if fleet.profiles or fleet.workers:
            return _not_configured(fleet, f"machine profile '{ask.profile[:MAX_SHOWN]}' is not configured")
        profile = ask.profile
    return Plan(model, None, profile, fleet.scope())


def _too_early(fleet: Fleet) -> Reject:
    message = f"this router is starting and waits for {waits_for(fleet)}; try again, or use another one"
    return Reject(ErrorCode.STORE_UNAVAILABLE, message)


def serving_workers(fleet: Fleet, ask: Ask) -> int:
    """How many workers could take such a request; 0: it is to wait.

    With `loaded_only` these are the holders of the model. At least 1 when waiting is of no use any more: the request
    would be refused, or the model failed to load.
    """
    plan = make_plan(fleet, ask)
    if isinstance(plan, Reject):
        return 1
    for ready in plan.candidates():
        urls = ready.loaded.get(plan.model.key, ()) if ask.loaded_only else ready.urls
        if urls:
            return len(urls)
        if ask.loaded_only and any(plan.model.key in fleet.workers[url].failed for url in ready.urls):
            return 1
    return 0


def waits_for(fleet: Fleet) -> str:
    """What a router that is starting has not heard of yet, for people to read."""
    return " and ".join(sorted(fleet.unheard))


def _pool(fleet: Fleet, ask: Ask) -> Pool | None:
    name = DEFAULT_POOL if ask.pool is None else pool_key(ask.pool)
    return None if name == DEFAULT_POOL else known(fleet.pools.get(name), name, ask.caller)


def real_profile(fleet: Fleet, asked: str) -> str | None:
    """The real profile, in lower case, that a caller's spelling means; None when there is none.

    A plain name stands for its spot variant only where the plain profile itself does not exist.
    """
    return _spelled(asked, fleet.index.profiles)


def _spelled(asked: str, profiles: Container[str]) -> str | None:
    key = asked.lower()
    if key in profiles:
        return key
    return key + SPOT_SUFFIX if key + SPOT_SUFFIX in profiles else None


def _choose(
    fleet: Fleet, ready: Ready, model: Servable, ask: Ask, inflight: Mapping[str, int], draw: float
) -> str | None:
    """Affinity first, then load.

    A worker that has the model keeps it until it is busier than `spill_bound` of another one; while a second worker is
    loading the model already, nobody else is made to. Without any holder those that are loading it come first, and for
    a LoRA then those that have the model below it.
    """
    loaded = _without(ready.loaded.get(model.key, ()), ask.avoid)
    if ask.loaded_only:
        return pick(loaded, fleet.workers, inflight, draw) if loaded else None
    loading = _without(ready.loading.get(model.key, ()), ask.avoid)
    everyone = _without(ready.urls, ask.avoid)
    if not everyone:
        return None
    if not loaded:
        near = () if model.under is None else _without(ready.loaded.get(model.under, ()), ask.avoid)
        return pick(loading or near or everyone, fleet.workers, inflight, draw)
    holder = pick(loaded, fleet.workers, inflight, draw)
    busy = load(fleet.workers[holder], inflight)
    if busy <= SPILL_SLACK or loading or len(loaded) == len(everyone):
        return holder
    other = pick(everyone, fleet.workers, inflight, draw)
    return other if busy > spill_bound(load(fleet.workers[other], inflight)) else holder


def _without(urls: tuple[str, ...], avoid: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(url for url in urls if url not in avoid) if avoid else urls


def _provision(fleet: Fleet, plan: Plan, ask: Ask) -> Decision:
    """What should be started: the first configured group that fits."""
    model, profile, pool, name = plan.model, plan.profile, plan.pool, plan.pool_name
    reserved = None if pool is None else {share.group for share in shares(pool, fleet.configured)}
    for group in fleet.configured:
        is_reserved = reserved is None or group in reserved
        if is_reserved and group.key[1] in model.bundles and profile in (None, group.key[0]):
            taken = _reserved(fleet, group) if pool is None else 0
            return Provision(group, is_configured=True, model_id=model.model_id, pool=name, reserved=taken)
    if not fleet.configured:
        group = Group(profile or "", model.bundles[0])
        return Provision(group, is_configured=False, model_id=model.model_id, pool=name)
    wanted = f"bundle '{model.bundles[0]}'" + (f" on machine profile '{ask.profile}'" if profile else "")
    if pool is not None:
        return _not_reserved(pool, f"{wanted}, which model '{model.model_id}' needs")
    return _not_configured(fleet, f"no workers are configured for {wanted}")


def _reserved(fleet: Fleet, group: Group) -> int:
    """How many healthy workers of a group serve resource pools only; costs a lookup for each pool."""
    scopes = (scope.by_group.get(group.key) for pool, scope in fleet.index.scopes.items() if pool != DEFAULT_POOL)
    return sum(len(ready.urls) for ready in scopes if ready is not None)


def _not_reserved(pool: Pool, what: str) -> Reject:
    profiles = sorted(pool.gpus)
    has = ", ".join(profiles) + (f" with bundle '{pool.bundle}'" if pool.bundle else "")
    message = f"pool '{pool.name}' reserves no workers for {what}; it reserves: {has}"
    return Reject(ErrorCode.GPU_NOT_CONFIGURED, message, {"configured_gpu_types": profiles, "pool": pool.name})


def _not_configured(fleet: Fleet, what: str) -> Reject:
    profiles = list(fleet.profiles or fleet.index.profiles.values())
    groups = ", ".join(f"{group.profile}:{group.bundle}" for group in fleet.configured)
    known = f"machine profiles: {', '.join(profiles) or 'none'}" + (f"; groups: {groups}" if groups else "")
    return Reject(ErrorCode.GPU_NOT_CONFIGURED, f"{what}; configured {known}", {"configured_gpu_types": profiles})
