"""Preparing a request: in pieces, with the same result, and no longer than somebody waits for it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.base import Capabilities, Input, Outputs, Picture, Prepared
from sie_server.engine.pipeline import PIECE_CHARS, Pipeline

WAIT_S = 60.0


class Slow:
    """An adapter whose second call waits for the test."""

    capabilities = Capabilities(outputs=frozenset({"dense"}))

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.entered, self.may_go_on = threading.Event(), threading.Event()

    def load(self, device: str) -> None:
        pass

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - the same
        self.calls.append(len(inputs))
        if len(self.calls) == 2:
            self.entered.set()
            assert self.may_go_on.wait(WAIT_S)
        return [Prepared(1, truncated=False, payload=each) for each in inputs]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:  # noqa: ARG002 - needs none
        return {}

    def unload(self) -> None:
        pass


@asynccontextmanager
async def opened() -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(1, time.monotonic)
    try:
        yield pipeline
    finally:
        await pipeline.close()


@given(lengths=st.lists(st.sampled_from([0, 1, 1000, PIECE_CHARS // 2, PIECE_CHARS, 2 * PIECE_CHARS]), max_size=8))
async def test_pieces_give_every_input_once_and_in_order(lengths: list[int]) -> None:
    adapter = Slow()
    adapter.may_go_on.set()
    inputs: list[Input] = [*("x" * length for length in lengths), Picture(b"")]
    async with opened() as pipeline:
        prepared, _ = await pipeline.prepare(adapter, inputs, is_query=False)
    assert [each.payload for each in prepared] == inputs
    ends = list(accumulate(adapter.calls, initial=0))
    shared = [lengths[start:end] for start, end in pairwise(ends) if end - start > 1]
    assert all(sum(piece) <= PIECE_CHARS for piece in shared)


async def test_a_request_that_nobody_waits_for_prepares_no_further_image() -> None:
    adapter = Slow()
    async with opened() as pipeline:
        asked = asyncio.create_task(pipeline.prepare(adapter, [Picture(b"")] * 100, is_query=False))
        await asyncio.to_thread(adapter.entered.wait, WAIT_S)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        adapter.may_go_on.set()
    assert adapter.calls == [1, 1]  # and the pool has nothing left to do
