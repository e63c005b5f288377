"""One look at a cluster: its health, pools, and the demand in its metrics, as values."""

import asyncio
from dataclasses import dataclass
from typing import Final

import httpx
import msgspec

from sie_cli.api import Api
from sie_cli.scrape import Scrape, parse
from sie_protocol.headers import METRICS, POOLS, SERVER_VERSION
from sie_protocol.pools import PoolInfo, PoolListItem
from sie_protocol.status import ClusterSummary, ModelSummary, WorkerInfo

MAX_POOLS: Final = 50  # whose leases are asked for, one request each
_OK: Final = 200


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /health` of a router."""

    status: str
    type: str = ""
    cluster: ClusterSummary
    configured_gpu_types: tuple[str, ...] = ()
    live_gpu_types: tuple[str, ...] = ()
    workers: tuple[WorkerInfo, ...] = ()
    models: tuple[ModelSummary, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a router told at `at`, in Unix seconds. `scrape` is None where metrics cannot be read."""

    url: str
    at: float
    version: str
    health: Health
    pools: tuple[PoolListItem, ...]
    leases: tuple[PoolInfo, ...]
    scrape: Scrape | None


async def look(api: Api, now: float) -> Snapshot:
    """Ask for everything.

    Raises:
        RefusedError: the address is no router, or refuses to tell.
    """
    told = await api.health()
    listed, scrape = await asyncio.gather(api.success(POOLS), _scrape(api))
    health, version = msgspec.convert(told.value, Health), told.headers.get(SERVER_VERSION.lower(), "unknown")
    pools = msgspec.convert(listed.value["pools"], tuple[PoolListItem, ...])
    named = [pool["name"] for pool in pools if pool["name"] != "default"][:MAX_POOLS]
    infos = await asyncio.gather(*(api.reply("GET", f"{POOLS}/{name}") for name in named))
    leases = tuple(msgspec.convert(info.value, PoolInfo) for info in infos if info.status == _OK)
    return Snapshot(api.url, now, version, health, pools, leases, scrape)


async def _scrape(api: Api) -> Scrape | None:
    try:
        reply = await api.reply("GET", METRICS)
        return parse(reply.text) if reply.status == _OK else None
    except (httpx.HTTPError, ValueError):
        return None
