from collections.abc import Iterator, Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from router_builders import L4, ask, fleet, pool, seen, status, url
from sie_protocol.status import STALE_AFTER_S
from sie_router.core.demand import BURST_S
from sie_router.core.events import LATE_S, Missed, PoolPut, Tick, WorkerGone, WorkerLost, WorkerSeen, apply
from sie_router.core.fleet import Fleet, Group, Worker
from sie_router.core.pools import DEFAULT_POOL
from sie_router.core.retry_after import GAP_S, RetryHint, retry_hint

KEY = (L4, DEFAULT_POOL)
MOST_S = 120
draws = st.floats(0, 1, exclude_max=True)


def asked(state: Fleet, now: float, draw: float) -> tuple[Fleet, int]:
    """One more client finds nobody."""
    state = apply(state, Missed(L4, DEFAULT_POOL, 300), now)
    return state, retry_hint(state, ask(), KEY, now, MOST_S, draw).delay_s


@given(st.lists(st.tuples(st.floats(0, 200), draws), min_size=1, max_size=20))
def test_who_asks_alone_is_told_the_configured_delay_and_a_herd_is_spread(asks: list[tuple[float, float]]) -> None:
    state, now, burst_at, told = fleet(), 0.0, None, []
    for pause_s, draw in asks:
        now += pause_s
        is_first = burst_at is None or now - burst_at >= BURST_S
        burst_at = now if is_first else burst_at
        state, answer = asked(state, now, draw)
        told.append(answer)
        assert answer == MOST_S if is_first else MOST_S <= answer <= MOST_S * 1.25
    assert told[0] == MOST_S


def test_all_of_a_herd_but_the_first_come_back_over_a_quarter_of_the_delay() -> None:
    state, told = fleet(), set[int]()
    for client in range(1000):
        state, answer = asked(state, client / 2000, client / 1000)
        told.add(answer)
    assert told == set(range(MOST_S, 151))


def test_whom_nobody_counts_are_spread_as_well() -> None:
    assert retry_hint(fleet(groups=[]), ask(), KEY, 0, MOST_S, 0.999).delay_s == 150


def test_what_is_told_agrees_with_itself() -> None:
    state = fleet()
    for event, now in ((Missed(L4, DEFAULT_POOL, 300), 0), (seen(), 40), (WorkerGone(url("w")), 50)):
        state = apply(state, event, now)
    state = apply(state, Missed(L4, DEFAULT_POOL, 300), 60)
    assert retry_hint(state, ask(), KEY, 75, MOST_S, 0) == RetryHint(delay_s=25, left_s=25, waited_s=15)
    assert retry_hint(state, ask(), KEY, 75, 20, 0) == RetryHint(delay_s=20, left_s=25, waited_s=15)


GAP = range(GAP_S[0], GAP_S[1] + 1)
A100 = Group("a100", "default")


def told(state: Fleet, draw: float, name: str = DEFAULT_POOL, profile: str | None = None) -> int:
    """What a client hears that asks for a worker of a pool."""
    asks = ask(profile=profile, pool=None if name == DEFAULT_POOL else name)
    return retry_hint(apply(state, Missed(L4, name, 300), 100), asks, (L4, name), 100, MOST_S, draw).delay_s


@given(draws)
def test_a_worker_that_is_here_and_gets_ready_is_waited_for_in_seconds(draw: float) -> None:
    assert told(fleet(seen(ready=False), now=99), draw) in GAP
    assert told(fleet(seen(profile="a100", ready=False), groups=[L4, A100], now=99), draw) in GAP, "any will do"
    assert told(fleet(seen(profile="a100", ready=False), groups=[L4, A100], now=99), draw, profile="l4") == MOST_S
    assert told(fleet(seen(ready=False, draining=True), now=99), draw) == MOST_S
    assert told(fleet(seen(), WorkerGone(url("w")), now=99), draw) == MOST_S


@given(draws)
def test_a_worker_that_gets_ready_is_coming_for_the_pool_that_will_have_it(draw: float) -> None:
    state = fleet(PoolPut(pool("a")), seen(ready=False), now=99)
    assert told(state, draw, "a") in GAP
    assert told(state, draw) == MOST_S
    assert told(apply(state, seen("v", ready=False), 99), draw) in GAP, "the other one is for everybody"


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, int(LATE_S)), draws)
def test_a_worker_that_is_here_but_never_gets_ready_is_waited_for_in_seconds_only_so_long(
    is_lost: list[bool], successor_at: int, draw: float
) -> None:
    state, frame = fleet(seen(ready=False)), WorkerSeen(url("w"), status("w", ready=False))
    for now in range(int(LATE_S) + successor_at + 3):
        if now == successor_at:
            frame = WorkerSeen(url("w"), status("v", ready=False))
        news = WorkerLost(url("w")) if is_lost[now % len(is_lost)] and now != successor_at else frame
        state = apply(apply(apply(state, news, now), frame, now), Tick(), now)
        assert (asked(state, now, draw)[1] in GAP) is (now - successor_at <= LATE_S)


@given(st.sampled_from(["ready", "draining", "silent"]), draws)
def test_a_worker_that_was_given_up_is_coming_again_once_it_has_served_or_begins_anew(how: str, draw: float) -> None:
    state = fleet(seen(ready=False))
    for now in range(int(LATE_S) + 10):
        state = apply(apply(state, seen(ready=False), now), Tick(), now)
    assert asked(state, now, draw)[1] not in GAP
    match how:
        case "ready":
            state = apply(state, seen(), now)
        case "draining":
            state = apply(state, seen(draining=True), now)
        case _:
            now += int(STALE_AFTER_S) + 1
            state = apply(state, Tick(), now)
    state = apply(apply(state, seen(ready=False), now), Tick(), now)
    assert asked(state, now, draw)[1] in GAP


class Unread(Mapping[str, Worker]):
    """Workers whom nobody may look at one by one."""

    def __getitem__(self, url: str) -> Worker:
        raise KeyError(url)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("walks over the fleet")

    def __len__(self) -> int:
        return 1


def test_a_refusal_walks_over_no_workers_while_one_is_coming() -> None:
    for state in (fleet(seen(ready=False), now=99), fleet(PoolPut(pool("a")), seen(ready=False), now=99)):
        name = "a" if state.pools else DEFAULT_POOL
        asks = ask(pool=name)
        assert retry_hint(replace(state, workers=Unread()), asks, (L4, name), 100, MOST_S, 0).delay_s == GAP_S[0]


def test_all_delays_of_a_gap_are_drawn_but_none_is_longer_than_the_configured_one() -> None:
    state = fleet(seen(ready=False), now=99)
    assert {told(state, draw / 100) for draw in range(100)} == set(GAP)
    assert {retry_hint(state, ask(), KEY, 100, 3, draw / 100).delay_s for draw in range(100)} == {2, 3}


@given(st.floats(0, 60), st.floats(0, 1), draws)
def test_a_client_of_a_lost_worker_is_served_within_seconds_of_a_soon_return(
    gap_s: float, part: float, draw: float
) -> None:
    state, ticks, asks_at = fleet(seen(), WorkerLost(url("w"))), 0, gap_s * part
    while asks_at < gap_s:
        while ticks < int(asks_at):
            ticks += 1
            state = apply(state, Tick(), ticks)
        state, delay = asked(state, asks_at, draw)
        assert (delay in GAP) is (ticks <= STALE_AFTER_S)
        asks_at += delay
    if gap_s <= STALE_AFTER_S:
        assert asks_at <= gap_s + GAP_S[1]
