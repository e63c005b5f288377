from hypothesis import given
from hypothesis import strategies as st

from sie_server.core.memory import MIN_STAY_S, Evict, Fits, Impossible, Reading, Resident, Wait, first_to_go, make_room

NOW = 1000.0
residents = st.lists(
    st.builds(
        Resident,
        name=st.text("abcdefgh", min_size=1, max_size=3),
        size_bytes=st.integers(0, 50),
        used_at=st.floats(NOW - 100, NOW),
        loaded_at=st.floats(NOW - 100, NOW),
        is_pinned=st.booleans(),
        is_busy=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda each: each.name,
)
needs = st.integers(0, 200)
frees = st.integers(-50, 100)


@given(residents, frees, needs)
def test_what_goes_frees_enough_and_no_more_models_than_that_takes(there: list[Resident], free: int, need: int) -> None:
    plan = make_room(there, free, need, NOW)
    if isinstance(plan, Evict):
        sizes = {each.name: each.size_bytes for each in there}
        freed = sum(sizes[name] for name in plan.names)
        assert free + freed >= need
        assert all(free + freed - sizes[name] < need for name in plan.names)


@given(residents, frees, needs)
def test_pinned_models_and_busy_ones_that_just_came_never_go(there: list[Resident], free: int, need: int) -> None:
    plan = make_room(there, free, need, NOW)
    gone = plan.names if isinstance(plan, Evict) else ()
    for each in there:
        if each.is_pinned or (each.is_busy and NOW - each.loaded_at < MIN_STAY_S):
            assert each.name not in gone


@given(residents, frees, needs)
def test_each_plan_is_what_the_numbers_say(there: list[Resident], free: int, need: int) -> None:
    movable = sum(each.size_bytes for each in there if not each.is_pinned)
    match make_room(there, free, need, NOW):
        case Fits():
            assert need <= free
        case Impossible(missing):
            assert free + movable + missing == need
            assert missing > 0
        case Wait(until):
            assert NOW < until <= NOW + MIN_STAY_S
            assert free < need <= free + movable
        case Evict():
            assert free < need <= free + movable


@given(residents, frees, needs)
def test_a_model_used_later_stays_when_one_of_its_size_that_was_used_before_can_go(
    there: list[Resident], free: int, need: int
) -> None:
    same = [Resident(each.name, 10, each.used_at, each.loaded_at) for each in there]
    plan = make_room(same, free, need, NOW)
    if isinstance(plan, Evict):
        stays = [each.used_at for each in same if each.name not in plan.names]
        goes = [each.used_at for each in same if each.name in plan.names]
        assert max(goes) <= min(stays, default=NOW)


def test_the_order_of_loading_is_irrelevant_and_idle_models_go_before_busy_ones() -> None:
    hot, cold = Resident("hot", 10, used_at=99, loaded_at=1), Resident("cold", 10, used_at=50, loaded_at=90)
    busy = Resident("busy", 10, used_at=10, loaded_at=1, is_busy=True)
    assert make_room([hot, cold, busy], 0, 10, 100) == Evict(("cold",))
    assert make_room([hot, cold, busy], 0, 30, 100) == Evict(("cold", "hot", "busy"))
    assert first_to_go([hot, cold, busy]) == "cold"
    assert first_to_go([busy]) is None


def test_a_small_old_model_stays_when_a_large_one_has_to_go_anyway() -> None:
    small, large = Resident("small", 1, used_at=1, loaded_at=0), Resident("large", 100, used_at=2, loaded_at=0)
    assert make_room([small, large], 0, 50, 100) == Evict(("large",))


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.floats(50, 99))
def test_free_memory_ends_at_the_threshold(used: int, limit: int, percent: float) -> None:
    assert Reading(used, limit).free_bytes(percent) == int(limit * percent / 100) - used
