"""What watchers of one worker are sent."""

from pathlib import Path

import msgspec

from served_worker import served, write_catalog
from sie_protocol.status import HEARTBEAT_S, WorkerStatus
from sie_server.api.status_ws import COALESCE_S

M = "org/hash"


async def test_watchers_of_one_change_share_a_frame_which_is_never_an_old_one(tmp_path: Path) -> None:
    async with served(write_catalog(tmp_path, {M: {}})) as worker:
        feed, now = worker.worker.feed, 1000.0
        first = feed.encoded(now)
        assert feed.encoded(now + 0.9 * COALESCE_S) is first
        assert msgspec.json.decode(feed.encoded(now + HEARTBEAT_S), type=WorkerStatus).timestamp == now + HEARTBEAT_S
        assert msgspec.json.decode(feed.encoded(now - 60), type=WorkerStatus).timestamp == now - 60, "a clock was set"
        before = feed.encoded(now)
        await worker.encode(M, "x")
        after = msgspec.json.decode(feed.encoded(now), type=WorkerStatus)
        assert (M in before, after.loaded_models) == (False, (M,))
