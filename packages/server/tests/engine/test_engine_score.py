import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gated_adapter import Kit, engine_of, until
from served_worker import served, write_catalog
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import Item
from sie_server.core.similarity import max_sims
from sie_server.engine import scoring
from sie_server.engine.loop import QueueLimits
from sie_server.engine.results import Scored


def score(kit: Kit, query: str, *texts: str) -> asyncio.Task[Scored]:
    return asyncio.create_task(scoring.score(kit.engine, "a", Item(text=query), [Item(text=text) for text in texts]))


async def test_scores_and_vectors_share_a_queue_and_its_batches() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        first = kit.send("first")
        await kit.entered()
        tasks = [*await kit.queued("b"), score(kit, "q", "c", "d d")]
        await until(lambda: kit.waiting() == 4)
        kit.gates["a"].open.set()
        await asyncio.gather(first, *tasks)
    assert kit.gates["a"].batches == [["first"], ["b", "q", "c", "d d"]]


async def test_items_are_ranked_and_the_query_is_counted_once() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        kit.gates["a"].open.set()
        scored = await score(kit, "x", "xxxxxxxxx", "x", "xx")  # vectors are [words, characters]
    assert scored.order == (1, 2, 0)
    assert scored.scores[1] == pytest.approx(1)
    assert (scored.model, scored.cost.input_tokens, scored.cost.truncated_items) == ("a", 4, 0)


async def test_a_cancelled_score_call_is_not_computed() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        first = kit.send("first")
        await kit.entered()
        gone = score(kit, "q", "gone")
        await until(lambda: kit.waiting() == 2)
        gone.cancel()
        await until(lambda: kit.depth() == 1)
        kit.gates["a"].open.set()
        await first
        assert gone.cancelled()
    assert kit.gates["a"].batches == [["first"]]


async def test_candidates_beyond_the_queue_are_refused_before_they_are_tokenised() -> None:
    async with engine_of("a", queue=QueueLimits(3, 1000, 60)) as kit:
        await kit.load()
        kit.gates["a"].open.set()
        with pytest.raises(Problem) as refused:
            await score(kit, "q", "a", "b", "c")
        assert refused.value.code is ErrorCode.INPUT_TOO_LONG
        assert len((await score(kit, "q", "a", "b")).scores) == 2


async def test_token_ids_need_a_tokenizer() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        with pytest.raises(Problem, match="cannot read token ids") as refused:
            await kit.engine.texts_of("a", [[1]])
    assert refused.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("vectors_at_once", [1, 3, 1000])
async def test_scores_of_late_interaction_do_not_depend_on_how_many_vectors_exist_at_a_time(
    tmp_path: Path, vectors_at_once: int
) -> None:
    model = {"tasks": {"encode": {"multivector": {"dim": 8}}}}
    texts = ["b c", "c", "a b c d e", "a b"]
    async with served(write_catalog(tmp_path, {"org/tokens": model})) as worker:
        encoded = (await worker.encode("org/tokens", "a b", *texts)).json()["items"]
        query, *documents = (np.array(each["multivector"]["values"], np.float32) for each in encoded)
        engine = worker.worker.engine
        engine.limits = replace(engine.limits, score_vector_bytes=vectors_at_once * 8 * 4)
        scored = await scoring.score(engine, "org/tokens", Item(text="a b"), [Item(text=text) for text in texts])
    np.testing.assert_allclose(scored.scores, max_sims(query, documents), rtol=1e-5, atol=1e-5)
    assert scored.order[0] in {2, 3}  # the texts that hold the whole query
    assert (scored.cost.input_tokens, scored.cost.truncated_items) == (12, 0)
