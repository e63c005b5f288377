import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_cli.batch.ordered import chunked, in_order


@given(st.lists(st.integers()), st.integers(1, 9))
def test_chunks_are_the_input_cut_into_pieces_of_the_size(values: list[int], size: int) -> None:
    chunks = list(chunked(iter(values), size))
    assert [value for chunk in chunks for value in chunk] == values
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(chunks)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 6))
def test_results_come_in_the_order_of_the_inputs_and_never_more_than_the_limit_are_under_way(
    delays: list[int], limit: int
) -> None:
    async def main() -> tuple[list[tuple[int, int]], int]:
        running = most = 0

        async def work(place: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(delays[place]):
                await asyncio.sleep(0)
            running -= 1
            return place * 10

        found = [pair async for pair in in_order(iter(range(len(delays))), work, limit, asyncio.Event())]
        return found, most

    found, most = asyncio.run(main())
    assert found == [(place, place * 10) for place in range(len(delays))]
    assert most <= limit


async def test_stopped_it_finishes_what_is_under_way_and_takes_nothing_more() -> None:
    stop, taken = asyncio.Event(), []

    async def work(value: int) -> int:
        taken.append(value)
        await stop.wait()
        return value

    async def stopper() -> None:
        while len(taken) < 3:  # noqa: ASYNC110 - the list has no event
            await asyncio.sleep(0)
        stop.set()

    stopping = asyncio.create_task(stopper())
    found = [value async for value, _ in in_order(iter(range(100)), work, 3, stop)]
    await stopping
    assert found == taken == [0, 1, 2]


async def test_an_input_that_never_comes_holds_up_neither_results_nor_a_stop() -> None:
    stop, never = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> "asyncio.Future[None]":
        return asyncio.run_coroutine_threadsafe(never.wait(), loop).result()  # type: ignore[return-value]

    class Slow:
        def __init__(self) -> None:
            self.given = 0

        def __iter__(self) -> "Slow":
            return self

        def __next__(self) -> int:
            self.given += 1
            if self.given > 1:
                slow()
            return self.given

    async def work(value: int) -> int:
        return value

    found = []
    async for value, _ in in_order(iter(Slow()), work, 4, stop):
        found.append(value)
        stop.set()
    assert found == [1]
    never.set()


async def test_the_first_failure_of_an_input_or_of_the_work_ends_it() -> None:
    async def work(value: int) -> int:
        return 1 // value

    with pytest.raises(ZeroDivisionError):
        [pair async for pair in in_order(iter([1, 0, 1]), work, 2, asyncio.Event())]

    def broken() -> "list[int]":
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        [pair async for pair in in_order((value for _ in [0] for value in broken()), work, 2, asyncio.Event())]
