from hypothesis import given, settings
from hypothesis import strategies as st

from sdk_pool_world import PoolWorld, lease_of
from sie_sdk import leases
from sie_sdk.errors import SIEConnectionError
from sie_sdk.leases import MAX_RETRY_S, RENEW_EVERY_S, Change

LEASE_S = 1200.0


@settings(max_examples=50)
@given(st.floats(0, 3000), st.floats(0, LEASE_S - 2 * RENEW_EVERY_S - 60), st.floats(0, 0.4), st.integers(0, 99))
def test_a_pool_outlives_every_outage_shorter_than_its_lease(
    begin: float, length: float, lost_answers: float, seed: int
) -> None:
    # An attempt may hang for its 30 s, and lost answers hide renewals that happened: hence the margin in `length`.
    world = PoolWorld(LEASE_S, outages=((begin, begin + length),), lost_answers=lost_answers, seed=seed)
    world.make("tenant")
    world.run(begin + length + 600)
    assert max(world.gaps("tenant")) < LEASE_S
    assert world.exists("tenant")
    assert Change.CREATED_ANEW not in {change for _, change in world.told}


@settings(max_examples=50)
@given(st.lists(st.floats(0, 5000), min_size=1, max_size=4), st.integers(0, 99))
def test_a_pool_that_the_router_lost_is_made_anew_at_the_next_renewal(losses: list[float], seed: int) -> None:
    world = PoolWorld(LEASE_S, losses=tuple(losses), seed=seed)
    world.make("tenant")
    world.run(max(losses) + RENEW_EVERY_S + 1)
    assert world.exists("tenant")
    assert set(world.told) == {("tenant", Change.CREATED_ANEW)}


@given(st.integers(0, 99))
def test_each_pool_is_renewed_every_minute_or_a_little_sooner(seed: int) -> None:
    world = PoolWorld(seed=seed)
    for name in ("a", "b", "c"):
        world.make(name)
        world.now += 7
    world.run(3600)
    for name in ("a", "b", "c"):
        gaps = list(world.gaps(name))
        assert len(gaps) >= 55
        assert all(RENEW_EVERY_S * (1 - leases.SPREAD) <= gap <= RENEW_EVERY_S + 21 for gap in gaps[:1])
        assert all(RENEW_EVERY_S * (1 - leases.SPREAD) - 1 <= gap <= RENEW_EVERY_S + 1 for gap in gaps[1:])


def test_a_short_lease_is_renewed_four_times_as_often_as_it_ends() -> None:
    assert leases.interval_s(None) == leases.interval_s(LEASE_S) == RENEW_EVERY_S
    assert leases.interval_s(4.0) == 1.0
    world = PoolWorld(lease_s=4.0)
    world.make("tenant", every_s=leases.interval_s(4.0))
    world.run(60)
    assert max(world.gaps("tenant")) < 2.0


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_after_failures_it_tries_again_within_seconds(failures: int, draw: float) -> None:
    due = leases.after(lease_of("a"), failures, 100.0, draw)
    assert 0.5 <= due.at - 100.0 <= MAX_RETRY_S


def test_a_deleted_pool_is_left_alone_and_a_changed_one_is_renewed_as_it_is_now() -> None:
    world = PoolWorld()
    old = world.make("tenant")
    world.run(100)
    new = world.make("tenant")
    assert (world.book.holds(old), world.book.holds(new)) == (False, True)
    world.book.drop("tenant")
    before = len(world.requests)
    world.run(1000)
    assert len(world.requests) == before
    assert world.began == 2


def test_a_pool_deleted_while_it_is_made_anew_is_deleted_again() -> None:
    world = PoolWorld(losses=(30.0,))
    world.make("tenant")
    world.on_create = lambda: world.book.drop("tenant")
    world.run(100)
    assert [request for _, request in world.requests] == [
        "POST /v1/pools/tenant/renew",
        "POST /v1/pools",
        "DELETE /v1/pools/tenant",
    ]
    assert not world.exists("tenant")


def test_failures_are_shown_while_they_last_and_told_once() -> None:
    world = PoolWorld(outages=((50.0, 400.0),))
    world.make("tenant")
    world.run(300)
    assert isinstance(world.book.failures["tenant"], SIEConnectionError)
    world.run(700)
    assert world.book.failures == {}
    assert world.told == [("tenant", Change.FAILING), ("tenant", Change.RECOVERED)]
