"""What becomes of requests for which a processor has no memory: torch is refused by the real allocator."""

import asyncio
from pathlib import Path

from hungry_adapter import ADAPTERS
from served_worker import served, write_catalog
from wire_answers import error_of

M, LARGE = "org/m", "org/large"


async def test_a_batch_that_no_memory_holds_is_tried_in_parts_and_only_what_never_fits_is_refused(
    tmp_path: Path,
) -> None:
    settings = write_catalog(tmp_path, {M: {"adapter": "hungry"}}, ADAPTERS)
    async with served(settings, ADAPTERS) as worker:
        assert (await worker.encode(M, "warm")).status_code == 200
        # Before the first failure as well: an alert on `increase` does not see a series that begins with 1.
        assert f'sie_oom_terminal_failures_total{{model="{M}"}} 0.0' in (await worker.http.get("/metrics")).text
        replies = await asyncio.gather(*(worker.encode(M, text) for text in ("a", "huge", "bb")))
        assert [reply.status_code for reply in replies] == [200, 503, 200]
        assert error_of(replies[1])["code"] == "RESOURCE_EXHAUSTED"
        assert "retry-after" in replies[1].headers
        metrics = (await worker.http.get("/metrics")).text
        for name in ("recoveries_attempted", "cache_clears", "terminal_failures"):
            assert f'sie_oom_{name}_total{{model="{M}"}} 1.0' in metrics


async def test_a_model_that_no_memory_holds_may_be_tried_again_later(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path, {LARGE: {"adapter": "hungry", "options": {"huge": True}}}, ADAPTERS)
    async with served(settings, ADAPTERS) as worker:
        error = error_of(await worker.encode(LARGE, "a"))
        assert (error["code"], error["error_class"], error["permanent"]) == ("MODEL_LOAD_FAILED", "OOM", False)
        assert "the model does not fit into the memory of cpu" in error["message"]
