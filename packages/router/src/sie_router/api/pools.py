"""Resource pools: make, look at, renew and delete reservations of workers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from sie_protocol.codec import body_too_long, decode_body
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.headers import JSON, POOLS
from sie_router.api.pool_views import default_pool_info, pool_info, pool_items
from sie_router.control.pools import PoolStore
from sie_router.core.events import Event, PoolGone, PoolPut
from sie_router.core.fleet import Fleet
from sie_router.core.pools import (
    DEFAULT_POOL,
    Caller,
    Pool,
    checked_name,
    is_name,
    known,
    no_pool,
    pool_key,
    put,
    renew,
)
from sie_router.core.reserve import check_share, reservation
from sie_router.data.caller import caller_of

MAX_BODY_BYTES: Final = 64 << 10


class PoolRequest(msgspec.Struct, frozen=True):
    """Body of a creation. Unknown keys of newer clients change nothing."""

    name: str
    gpus: dict[str, int] = {}
    bundle: str | None = None
    minimum_worker_count: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many pools there may be, and how many workers one may reserve; and both for all pools of one owner."""

    max_pools: int
    max_workers: int
    max_pools_per_owner: int
    max_workers_per_owner: int | None


class Pools:
    """The handlers. Intent is written to the store first; the fleet of this router hears of it at once."""

    def __init__(
        self,
        store: PoolStore,
        snapshot: Callable[[], Fleet],
        publish: Callable[[Event], None],
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._publish = publish
        self._clock = clock
        self._limits = limits
        self._being_made: dict[str, Pool] = {}

    async def create(self, body: bytes, content_type: str | None, caller: Caller) -> Response:
        """Make a pool (201), or change and renew one's own (200)."""
        asked = decode_body(body, content_type, PoolRequest)
        name, now, fleet = checked_name(asked.name), self._clock(), self._snapshot()
        spec = reservation(fleet, asked.gpus, asked.bundle, asked.minimum_worker_count, self._limits.max_workers)
        pool = Pool(name, spec.gpus, spec.minimum_worker_count, spec.bundle, caller.id, now, now)
        self._check_room(pool, caller)
        self._being_made[name] = pool
        try:
            made = await self._store.change(name, partial(put, asked=pool, caller=caller))
        finally:
            self._being_made.pop(name, None)
        assert made is not None  # noqa: S101 - `put` always returns a pool
        self._publish(PoolPut(made))
        return _json(pool_info(self._snapshot(), made), 201 if made == pool else 200)

    async def get(self, name: str, caller: Caller) -> Response:
        """One pool; this router may not have heard of it yet, so a miss asks the store."""
        fleet, key = self._snapshot(), pool_key(name)
        if key == DEFAULT_POOL:
            return _json(default_pool_info(fleet))
        found = fleet.pools.get(key) or (await self._store.get(_stored_name(name)))
        return _json(pool_info(fleet, known(found, key, caller)))

    async def renew(self, name: str, caller: Caller) -> Response:
        """Begin the lease anew; the default pool needs none."""
        if pool_key(name) != DEFAULT_POOL:
            key = _stored_name(name)
            renewed = await self._store.change(key, partial(renew, name=key, caller=caller, now=self._clock()))
            assert renewed is not None  # noqa: S101 - `renew` always returns a pool
            self._publish(PoolPut(renewed))
        return _json({"message": f"Lease renewed for pool '{pool_key(name)}'"})

    async def delete(self, name: str, caller: Caller) -> Response:
        """End a reservation; its workers serve everybody from now on."""
        if pool_key(name) == DEFAULT_POOL:
            raise Problem(ErrorCode.INVALID_INPUT, f"the pool '{DEFAULT_POOL}' cannot be deleted; it reserves nothing")
        key = _stored_name(name)

        def gone(current: Pool | None) -> None:
            known(current, key, caller)

        await self._store.change(key, gone)
        self._publish(PoolGone(key))
        return _json({"message": f"Pool '{key}' deleted"})

    def list(self, caller: Caller) -> Response:
        """The pools that are this caller's, and the default one."""
        return _json({"pools": pool_items(self._snapshot(), caller)})

    def _check_room(self, asked: Pool, caller: Caller) -> None:
        known, limits = self._snapshot().pools, self._limits
        if not caller.is_admin:
            both = (*known.values(), *self._being_made.values())
            check_share(both, asked, limits.max_pools_per_owner, limits.max_workers_per_owner)
        pools = known.keys() | self._being_made.keys()
        if asked.name not in pools and len(pools) >= limits.max_pools:
            message = f"there are {len(pools)} pools and no more are allowed; delete one, or wait until a lease ends"
            raise Problem(ErrorCode.RESOURCE_EXHAUSTED, message, retry_after_s=60)


def pool_routes(pools: Pools) -> APIRouter:
    """`/v1/pools` and below."""
    routes = APIRouter(tags=["pools"])

    @routes.post(POOLS, status_code=201)
    async def create_pool(request: Request) -> Response:
        """Reserve workers: `{"name", "gpus": {profile: count}, "bundle"?, "minimum_worker_count"?}`."""
        return await pools.create(await _body(request), request.headers.get("content-type"), caller_of(request.scope))

    @routes.get(POOLS)
    async def list_pools(request: Request) -> Response:
        """List one's own pools and the default one."""
        return pools.list(caller_of(request.scope))

    @routes.get(POOLS + "/{name}")
    async def get_pool(request: Request, name: str) -> Response:
        """Describe one pool and the workers that serve it."""
        return await pools.get(name, caller_of(request.scope))

    @routes.delete(POOLS + "/{name}")
    async def delete_pool(request: Request, name: str) -> Response:
        """End a reservation."""
        return await pools.delete(name, caller_of(request.scope))

    @routes.post(POOLS + "/{name}/renew")
    async def renew_pool(request: Request, name: str) -> Response:
        """Begin the lease of a pool anew; the body, if any, is not read."""
        return await pools.renew(name, caller_of(request.scope))

    return routes


async def _body(request: Request) -> bytes:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise body_too_long(len(data), MAX_BODY_BYTES)
    return data


def _stored_name(name: str) -> str:
    """The name as a store can look it up; what no pool can be called does not exist."""
    key = pool_key(name)
    if not is_name(key):
        raise no_pool(name)
    return key


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
