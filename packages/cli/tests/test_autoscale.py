import asyncio

from cluster_log import ClusterLog
from sie_cli.autoscale import autoscale, rules_of
from sie_cli.clusterfile import ClusterFile, decode, pools
from sie_cli.events import Event, ScaleEvent
from sie_cli.scaler import Cause, Rules


def a_file(text: str) -> ClusterFile:
    return decode(f"workers: {{pools: {{l4: {{minReplicas: 0, maxReplicas: 3}}}}}}\nautoscaling: {text}".encode())


async def until_it_scales(file: ClusterFile) -> list[tuple[str, int]]:
    """Sizes that the loop asked for, up to its first decision, when there is no router at all."""
    log, sizes = ClusterLog(), list[tuple[str, int]]()
    loop = asyncio.create_task(autoscale(file, pools(file), (), lambda pool, n: sizes.append((pool, n)), log.add))
    await log.until(lambda event: isinstance(event, ScaleEvent))
    loop.cancel()
    await asyncio.wait((loop,))
    return sizes


def test_the_file_decides_the_scalers_rules() -> None:
    file = decode(b"workers: {pools: {l4: {minReplicas: 1, maxReplicas: 10}}}")
    assert rules_of(file.autoscaling, pools(file)[0]) == Rules(min_replicas=1, max_replicas=10)
    file = a_file(
        "{pollingInterval: 1, cooldownPeriod: 2, scaleDownStabilization: 3, syncPeriod: 4, fallbackReplicas: null}"
    )
    assert rules_of(file.autoscaling, pools(file)[0]) == Rules(0, 3, 1, 2, 4, 3, None)


async def test_a_cluster_whose_routers_cannot_be_read_falls_back_after_three_polls() -> None:
    assert await until_it_scales(a_file("{pollingInterval: 0.01, fallbackReplicas: 2}")) == [("l4", 0), ("l4", 2)]


async def test_without_autoscaling_every_pool_stays_at_its_minimum() -> None:
    file = decode(b"workers: {pools: {a: {minReplicas: 2}, b: {}}}\nautoscaling: {enabled: false}")
    sizes: list[tuple[str, int]] = []
    events: list[Event] = []
    both = asyncio.Event()

    def scale(pool: str, replicas: int) -> None:
        sizes.append((pool, replicas))
        if len(sizes) == 2:
            both.set()

    loop = asyncio.create_task(autoscale(file, pools(file), (), scale, events.append))
    await both.wait()
    assert (sizes, events) == ([("a", 2), ("b", 0)], [])
    loop.cancel()
    await asyncio.wait((loop,))


async def test_the_reason_of_a_fallback_is_reported() -> None:
    log, file = ClusterLog(), a_file("{pollingInterval: 0.01}")
    loop = asyncio.create_task(autoscale(file, pools(file), (), lambda *_: None, log.add))
    event = await log.until(lambda event: isinstance(event, ScaleEvent))
    loop.cancel()
    await asyncio.wait((loop,))
    assert isinstance(event, ScaleEvent)
    assert event.change.cause is Cause.FALLBACK
