from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.core.batching import WINDOW_BATCHES, Limits, take

NOW = 1000.0


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    tokens: int
    arrived_at: float = NOW
    deadline: float | None = None
    cancelled: bool = False


entries = st.builds(
    Waiting,
    tokens=st.integers(1, 40),
    arrived_at=st.floats(NOW - 10, NOW),
    deadline=st.none() | st.floats(NOW - 5, NOW + 5),
    cancelled=st.booleans(),
)
queues = st.lists(entries, max_size=40).map(lambda each: sorted(each, key=lambda entry: entry.arrived_at))
limits = st.builds(
    Limits,
    st.integers(1, 60),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.5, 5.0, 100.0]),
    st.none() | st.integers(1, 200),
)


@given(queues, limits)
def test_every_entry_is_in_exactly_one_part(queue: list[Waiting], bounds: Limits) -> None:
    taken = take(queue, bounds, NOW)
    parts = [*taken.batch, *taken.rest, *taken.expired, *taken.cancelled]
    assert sorted(map(id, parts)) == sorted(map(id, queue))


@given(queues, limits)
def test_each_part_keeps_the_order_of_arrival(queue: list[Waiting], bounds: Limits) -> None:
    taken = take(queue, bounds, NOW)
    places = {id(entry): place for place, entry in enumerate(queue)}
    for part in (taken.batch, taken.rest, taken.expired, taken.cancelled):
        found = [places[id(entry)] for entry in part]
        assert found == sorted(found)


@given(queues, limits)
def test_a_batch_keeps_all_limits_unless_it_is_one_large_entry(queue: list[Waiting], bounds: Limits) -> None:
    batch = take(queue, bounds, NOW).batch
    assert len(batch) <= bounds.max_items
    assert sum(entry.tokens for entry in batch) <= bounds.max_tokens or len(batch) == 1
    padded = len(batch) * max((entry.tokens for entry in batch), default=0)
    assert bounds.max_padded is None or padded <= bounds.max_padded or len(batch) == 1


@given(queues, limits)
def test_only_live_entries_are_batched_and_the_dead_are_named(queue: list[Waiting], bounds: Limits) -> None:
    taken = take(queue, bounds, NOW)
    assert all(entry.cancelled for entry in taken.cancelled)
    assert all(entry.deadline is not None and entry.deadline <= NOW for entry in taken.expired)
    for entry in (*taken.batch, *taken.rest):
        assert not entry.cancelled
        assert entry.deadline is None or entry.deadline > NOW


@given(queues, limits)
def test_the_oldest_live_entry_is_always_served(queue: list[Waiting], bounds: Limits) -> None:
    taken = take(queue, bounds, NOW)
    live = [entry for entry in queue if not entry.cancelled and (entry.deadline is None or entry.deadline > NOW)]
    assert taken.batch[:1] == tuple(live[:1])


@given(queues, limits)
def test_nobody_overtakes_an_entry_that_lost_its_patience(queue: list[Waiting], bounds: Limits) -> None:
    taken = take(queue, bounds, NOW)
    left = [entry for entry in taken.rest if NOW - entry.arrived_at >= bounds.patience_s]
    if left:
        assert all(entry.arrived_at <= left[0].arrived_at for entry in taken.batch)


@given(queues, st.integers(1, 60), st.integers(1, 8))
def test_without_patience_a_batch_is_the_front_of_the_queue(queue: list[Waiting], tokens: int, items: int) -> None:
    taken = take(queue, Limits(tokens, items), NOW)
    dead = {id(entry) for entry in (*taken.expired, *taken.cancelled)}
    live = [entry for entry in queue if id(entry) not in dead]
    assert list(taken.batch) + list(taken.rest) == live


@given(queues, limits)
def test_wake_up_is_the_first_deadline_of_the_rest(queue: list[Waiting], bounds: Limits) -> None:
    taken = take(queue, bounds, NOW)
    deadlines = [entry.deadline for entry in taken.rest if entry.deadline is not None]
    assert taken.wake_at == (min(deadlines) if deadlines else None)


@given(st.integers(1, 500), limits, st.lists(st.integers(1, 10), min_size=1, max_size=8))
def test_a_long_entry_does_not_starve_under_endless_short_ones(long: int, bounds: Limits, short: list[int]) -> None:
    victim = Waiting(long, NOW)
    queue = [*(Waiting(tokens, NOW - 0.001) for tokens in short), victim]
    # Each round takes a tenth of a second and brings more short entries than a batch can hold.
    rounds = len(queue) + int(bounds.patience_s * 10) + 2
    for number in range(rounds):
        now = NOW + number / 10
        taken = take(queue, bounds, now)
        if victim in taken.batch:
            return
        arrivals = [Waiting(1, now) for _ in range(bounds.max_items + 1)]
        queue = [*taken.rest, *arrivals]
    pytest.fail(f"still waiting after {rounds} batches")


def test_similar_lengths_share_a_batch_while_everybody_is_patient() -> None:
    queue = [Waiting(10), Waiting(40), Waiting(11), Waiting(39), Waiting(9)]
    batch = take(queue, Limits(45, 8, patience_s=1.0), NOW).batch
    assert [entry.tokens for entry in batch] == [10, 11, 9]


def test_likeness_is_sought_only_a_few_batches_ahead() -> None:
    far = Waiting(10)
    queue = [Waiting(10), *(Waiting(20) for _ in range(WINDOW_BATCHES)), far]
    assert far not in take(queue, Limits(20, 8, patience_s=1.0), NOW).batch


def test_an_empty_queue_gives_nothing() -> None:
    nobody: tuple[Waiting, ...] = ()
    taken = take(nobody, Limits(10, 10), NOW)
    assert (taken.batch, taken.rest, taken.wake_at) == ((), (), None)
