"""Pools in Kubernetes: a ConfigMap for what was asked, a Lease for when it last was, both named `RELEASE-pool-NAME`.

A pool exists exactly as long as both do. The Lease is created last and deleted first, always in the version that was
read: so a pool that somebody renews at the same moment is not deleted, and one that is being deleted is not renewed. A
ConfigMap without a Lease is half a deletion or half a creation; the next pool of that name takes it over. Releases that
share a namespace have pools of their own: a router sees only names that begin with its release's.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from sie_router.control.kube import Conflict, KubeApi, KubeError, NotFound, Pace, follow
from sie_router.control.kube_objects import CONFIG_MAPS, LEASES, ConfigMap, Kind, Lease, LeaseSpec, Meta, Thing
from sie_router.control.pools import Bounds, Snapshots, Step, unavailable
from sie_router.core.events import PoolEvent
from sie_router.core.leases import LEASE_S
from sie_router.core.pools import MAX_WORKERS, Pool

TYPE_LABEL: Final = "sie.superlinked.com/type"
RELEASE_LABEL: Final = "app.kubernetes.io/instance"
SELECTOR: Final = f"{TYPE_LABEL} in (pool)"
RELEASE: Final = "sie"
MAX_TRIES: Final = 10
PAUSE_S: Final = 0.05  # after a conflict, times a number in [0.5, 1.5) and the number of the try

logger = logging.getLogger(__name__)


class _Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """`data.spec`: what an operator may write by hand as well."""

    gpus: dict[str, int]
    minimum_worker_count: int = 0
    bundle: str | None = None


class _Origin(msgspec.Struct, frozen=True):
    """`data.origin`: who made the pool, and when (Unix seconds)."""

    owner: str
    created_at: float


@dataclass(frozen=True, slots=True)
class _Stored:
    """What one read found."""

    config: ConfigMap | None
    lease: Lease | None
    pool: Pool | None


class KubePools:
    """A `PoolStore` for all routers of a namespace. Does not own the API client. `draw` is uniform in [0, 1)."""

    def __init__(
        self,
        api: KubeApi,
        draw: Callable[[], float],
        pace: Pace | None = None,
        *,
        lease_s: float = LEASE_S,
        release: str = RELEASE,
        max_workers: int = MAX_WORKERS,
    ) -> None:
        self._api = api
        self._release = release
        self._prefix = prefix(release)
        self._draw = draw
        self._pace = pace
        self._lease_s = lease_s
        self._bounds = Bounds(max_workers)

    async def watch(self) -> AsyncGenerator[PoolEvent]:
        """As the protocol says; while the API is away the last pools stand."""
        seen, sets = Snapshots(), _Sets(self._joined)
        tasks = (
            asyncio.create_task(self._follow(CONFIG_MAPS, sets.put_configs)),
            asyncio.create_task(self._follow(LEASES, sets.put_leases)),
        )
        for task in tasks:
            task.add_done_callback(sets.end)
        try:
            while (pools := await sets.next()) is not None:
                for event in seen.events(pools):
                    yield event
            await asyncio.gather(*tasks)  # neither ever ends, so this tells why one did
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def get(self, name: str) -> Pool | None:
        """As the protocol says."""
        try:
            return (await self._read(name)).pool
        except KubeError as error:
            raise unavailable(error) from error

    async def change(self, name: str, step: Step) -> Pool | None:
        """As the protocol says; after a conflict the pool is read again and `step` decides again."""
        for tried in range(1, MAX_TRIES + 1):
            try:
                stored = await self._read(name)
                after = step(stored.pool)
                await self._write(name, stored, after)
            except (Conflict, NotFound):
                await asyncio.sleep(PAUSE_S * tried * (0.5 + self._draw()))
            except KubeError as error:
                raise unavailable(error) from error
            else:
                return after
        raise unavailable(KubeError(f"{MAX_TRIES} tries met somebody else's change of pool '{name}'"))

    async def _follow(self, kind: Kind[Thing], put: Callable[[Mapping[str, Thing]], None]) -> None:
        stream = follow(self._api, kind, draw=self._draw, selector=SELECTOR, pace=self._pace)
        async with aclosing(stream) as sets:
            async for things in sets:
                put(things)

    async def _read(self, name: str) -> _Stored:
        """The Lease is read first: what is deleted in between is then missing its ConfigMap, not the reverse."""
        lease = config = None
        with suppress(NotFound):
            lease = await self._api.get(LEASES, self._prefix + name)
        with suppress(NotFound):
            config = await self._api.get(CONFIG_MAPS, self._prefix + name)
        return _Stored(config, lease, self._pool(config, lease))

    def _joined(self, configs: Mapping[str, ConfigMap], leases: Mapping[str, Lease]) -> dict[str, Pool]:
        pairs = ((config, leases.get(name)) for name, config in configs.items() if name.startswith(self._prefix))
        pools = (self._pool(config, lease) for config, lease in pairs)
        return {pool.name: pool for pool in pools if pool is not None}

    def _pool(self, config: ConfigMap | None, lease: Lease | None) -> Pool | None:
        return None if config is None or lease is None else self._bounds(_pool(config, lease, self._prefix))

    async def _write(self, name: str, stored: _Stored, after: Pool | None) -> None:
        if after == stored.pool and after is not None:
            return
        if after is None:
            await self._delete(name, stored)
            return
        if not _is_same_reservation(stored.pool, after):
            config = _config(after, self._meta(after, stored.config))
            await (self._api.create if stored.config is None else self._api.put)(CONFIG_MAPS, config)
        lease = _lease(after, self._meta(after, stored.lease), self._lease_s)
        await (self._api.create if stored.lease is None else self._api.put)(LEASES, lease)

    async def _delete(self, name: str, stored: _Stored) -> None:
        """Delete what was read, not what somebody wrote since."""
        if stored.lease is not None:
            await self._api.delete(LEASES, self._prefix + name, version=_version(stored.lease))
        if stored.config is not None:
            with suppress(NotFound, Conflict):  # somebody else is deleting as well, or is making the pool anew
                await self._api.delete(CONFIG_MAPS, self._prefix + name, version=_version(stored.config))

    def _meta(self, pool: Pool, stored: ConfigMap | Lease | None) -> Meta:
        labels = {TYPE_LABEL: "pool", RELEASE_LABEL: self._release}
        return Meta(name=self._prefix + pool.name, resource_version=_version(stored), labels=labels)


class _Sets:
    """The last ConfigMaps and Leases that were told, and a signal that there are new ones. One reader."""

    def __init__(self, joined: Callable[[Mapping[str, ConfigMap], Mapping[str, Lease]], dict[str, Pool]]) -> None:
        self._joined = joined
        self._configs: Mapping[str, ConfigMap] | None = None
        self._leases: Mapping[str, Lease] | None = None
        self._changed = asyncio.Event()
        self._is_over = False

    def end(self, _: asyncio.Task[None]) -> None:
        """Nothing more will be told of one half."""
        self._is_over = True
        self._changed.set()

    def put_configs(self, configs: Mapping[str, ConfigMap]) -> None:
        self._configs = configs
        self._changed.set()

    def put_leases(self, leases: Mapping[str, Lease]) -> None:
        self._leases = leases
        self._changed.set()

    async def next(self) -> dict[str, Pool] | None:
        """The pools, once something changed and both halves are known; None when there will be no more."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._is_over:
                return None
            if self._configs is not None and self._leases is not None:
                return self._joined(self._configs, self._leases)


def prefix(release: str) -> str:
    """What the names of a release's pools begin with."""
    return f"{release}-pool-"


def _pool(config: ConfigMap, lease: Lease, prefix: str) -> Pool | None:
    name = config.metadata.name.removeprefix(prefix)
    try:
        spec = msgspec.json.decode(config.data.get("spec", ""), type=_Spec)
        origin = _origin(config)
        renewed = lease.spec.renew_time or lease.spec.acquire_time
        last_renewed = origin.created_at if renewed is None else _seconds(renewed)
    except (msgspec.MsgspecError, ValueError) as error:
        logger.warning("ConfigMap '%s' holds no pool: %s", config.metadata.name, error)
        return None
    return Pool(name, spec.gpus, spec.minimum_worker_count, spec.bundle, origin.owner, origin.created_at, last_renewed)


def _origin(config: ConfigMap) -> _Origin:
    if "origin" in config.data:
        return msgspec.json.decode(config.data["origin"], type=_Origin)
    return _Origin("", _seconds(config.metadata.creation_timestamp or "1970-01-01T00:00:00Z"))


def _is_same_reservation(stored: Pool | None, after: Pool) -> bool:
    """True when only the Lease has to be written."""
    return stored is not None and (
        stored.reservation == after.reservation
        and (stored.minimum_worker_count, stored.owner) == (after.minimum_worker_count, after.owner)
    )


def _config(pool: Pool, meta: Meta) -> ConfigMap:
    spec = _Spec(dict(pool.gpus), pool.minimum_worker_count, pool.bundle)
    origin = _Origin(pool.owner, pool.created_at)
    data = {"spec": msgspec.json.encode(spec).decode(), "origin": msgspec.json.encode(origin).decode()}
    return ConfigMap(metadata=meta, data=data)


def _lease(pool: Pool, meta: Meta, lease_s: float) -> Lease:
    renewed = datetime.fromtimestamp(pool.last_renewed, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = LeaseSpec(holder_identity=pool.name, lease_duration_seconds=math.ceil(lease_s), renew_time=renewed)
    return Lease(metadata=meta, spec=spec)


def _version(thing: ConfigMap | Lease | None) -> str:
    return "" if thing is None else thing.metadata.resource_version


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
