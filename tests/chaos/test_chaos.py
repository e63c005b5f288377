"""Everything that happens to a cluster in a bad week, in seconds (`make test`) or ten minutes (`make chaos`)."""

import itertools
import time
from pathlib import Path

from chaos_cluster import ChaosCluster
from chaos_load import Load

SHARE = 0.6  # of the capacity measured at the start
LOST = 0.001  # of the requests of a client that never retries


async def disturb(cluster: ChaosCluster, seconds: float) -> None:
    """One disturbance after the other until the time is up, each at least once."""
    spell_s = min(15.0, seconds / 5)  # 15 s of silence make a worker stale, and end before clients lose patience
    end = time.monotonic() + seconds
    for round_number in itertools.count():
        first, second = round_number % 3, (round_number + 1) % 3
        await cluster.kill_worker(first)
        await cluster.freeze_worker(second, spell_s)
        await cluster.fail_worker(spell_s)
        await cluster.roll_routers()
        if time.monotonic() > end:
            return


async def test_clients_notice_nothing_while_workers_and_routers_come_and_go(
    tmp_path: Path, chaos_seconds: float
) -> None:
    cluster = ChaosCluster(tmp_path)
    try:
        await cluster.start()
        load = Load(cluster)
        await load.learn()
        capacity = await load.capacity(min(5.0, chaos_seconds / 5))
        started = time.monotonic()
        async with load.running(SHARE * capacity):
            await disturb(cluster, chaos_seconds)
        rate = sum(count.total() for count in load.tally.counts.values()) / (time.monotonic() - started)
        print(f"\n{capacity:.0f} requests/s at most, {rate:.0f} under disturbance\n{load.tally.table()}")  # noqa: T201
        assert load.tally.failures("sdk") == 0
        impatient = load.tally.counts["never retries"].total()
        assert load.tally.failures("never retries") <= max(1.0, LOST * impatient)
    finally:
        await cluster.close()
