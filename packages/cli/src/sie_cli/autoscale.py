"""The loop around the scaler: reads the routers' metrics, takes the steps that are due, resizes pools."""

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx

from sie_cli import scaler, scrape
from sie_cli.clusterfile import AutoscalingSection, ClusterFile, Pool
from sie_cli.events import Emit, ScaleEvent
from sie_cli.scaler import Rules, State
from sie_protocol.headers import AUTHORIZATION

Scale = Callable[[str, int], None]  # pool name, replicas


def rules_of(section: AutoscalingSection, pool: Pool) -> Rules:
    """The scaler's settings of one pool."""
    return Rules(
        min_replicas=pool.min_replicas,
        max_replicas=pool.max_replicas,
        polling_interval_s=section.polling_interval,
        cooldown_s=section.cooldown_period,
        sync_period_s=section.sync_period,
        stabilization_s=section.scale_down_stabilization,
        fallback_replicas=section.fallback_replicas,
    )


async def autoscale(
    file: ClusterFile,
    pools: Sequence[Pool],
    routers: Sequence[str],
    scale: Scale,
    emit: Emit,
    token: str | None = None,
) -> None:
    """Bring every pool to its minimum, then, if the file enables autoscaling, follow the metrics until cancelled.

    `token`: for routers that show their metrics to its holders only.
    """
    for pool in pools:
        scale(pool.name, pool.min_replicas)
    section = file.autoscaling
    usual = scaler.triggers(section.queue_depth_threshold, section.queue_depth_activation - 1)  # active above it
    triggers = (*usual, *scaler.lease_triggers())
    rules = {pool: rules_of(section, pool) for pool in pools}
    states = {pool: State(pool.min_replicas) for pool in pools}
    headers = {AUTHORIZATION: f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        while section.enabled:
            scrapes = await asyncio.gather(*(scrape.scrape(client, url) for url in routers))
            now = time.monotonic()
            for pool in pools:
                readings = scrape.read(scrapes, (pool.profile, pool.bundle), triggers)
                states[pool], changes = scaler.step(rules[pool], states[pool], readings, now)
                for change in changes:
                    scale(pool.name, change.after)
                    emit(ScaleEvent(pool.name, change, now))
            await asyncio.sleep(max(0.0, min(state.due for state in states.values()) - time.monotonic()))
    await asyncio.Event().wait()
