import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_builders import pool
from sie_protocol.errors import ErrorCode, Problem
from sie_router.core.pools import ANYONE, MAX_NAME, Caller, checked_name, put, renew, within_bounds

ALICE, BOB, ADMIN = Caller("alice"), Caller("bob"), Caller("root", is_admin=True)
moments = st.floats(0, 2e9)


@pytest.mark.parametrize("name", ["a", "tenant-abc", "Tenant-ABC", "0", "a" * MAX_NAME])
def test_names_are_kept_in_lower_case(name: str) -> None:
    assert checked_name(name) == name.lower()


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a/b", "a.b", "é", "a" * (MAX_NAME + 1), "a\nb", "Default"])
def test_names_that_no_object_could_have_are_refused(name: str) -> None:
    with pytest.raises(Problem) as refused:
        checked_name(name)
    assert refused.value.code is ErrorCode.INVALID_INPUT


@given(moments, st.lists(moments, max_size=8))
def test_every_write_is_later_than_the_one_before_whatever_the_clocks_say(start: float, clocks: list[float]) -> None:
    current = pool("a", created_at=start, last_renewed=start)
    for now in clocks:
        after = renew(current, "a", ANYONE, now)
        assert current.is_before(after)
        assert not after.is_before(current)
        assert after.last_renewed >= now
        current = after


def test_asking_again_changes_the_reservation_and_keeps_age_and_owner() -> None:
    first = pool("a", {"l4": 1}, owner="alice", created_at=5, last_renewed=5)
    again = put(first, pool("a", {"a100": 2}, owner="alice", created_at=9, last_renewed=9), ALICE)
    assert again == pool("a", {"a100": 2}, owner="alice", created_at=5, last_renewed=9)
    by_admin = put(first, pool("a", {"l4": 3}, owner="root", created_at=9, last_renewed=9), ADMIN)
    assert (by_admin.owner, by_admin.gpus) == ("alice", {"l4": 3})


def test_a_pool_is_its_owners_and_the_admins() -> None:
    owned, shared = pool("a", owner="alice"), pool("a")
    for caller, expected in ((ALICE, True), (BOB, False), (ADMIN, True), (ANYONE, True)):
        assert owned.is_for(caller) is expected
        assert shared.is_for(caller)
    with pytest.raises(Problem) as refused:
        put(owned, pool("a", owner="bob"), BOB)
    assert refused.value.code is ErrorCode.FORBIDDEN
    with pytest.raises(Problem) as missing:
        renew(None, "a", ALICE, 0)
    assert missing.value.code is ErrorCode.POOL_NOT_FOUND


@given(
    st.dictionaries(st.sampled_from(["l4", "a100", "t4"]), st.integers(-9, 99)),
    st.integers(-9, 199),
    st.integers(1, 64),
)
def test_whatever_was_stored_by_hand_is_used_within_the_bounds(gpus: dict[str, int], floor: int, most: int) -> None:
    stored = pool("a", gpus, minimum_worker_count=floor)
    sound = within_bounds(stored, most)
    positive = {profile: count for profile, count in gpus.items() if count > 0}
    if sound is None:
        assert not positive
        return
    assert set(sound.gpus) <= set(positive)
    assert all(1 <= count <= positive[profile] for profile, count in sound.gpus.items())
    total = sum(sound.gpus.values())
    assert total == min(most, sum(positive.values()))
    assert 0 <= sound.minimum_worker_count <= total
    assert within_bounds(sound, most) is sound
