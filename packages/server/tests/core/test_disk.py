from hypothesis import given
from hypothesis import strategies as st

from sie_server.core.disk import MARGIN_BYTES, Cached, Disk, DiskLimits, Evict, NoRoom, make_room

GB = 10**9
SIZES = st.integers(0, 100 * GB)
MODELS = st.lists(st.builds(Cached, st.uuids().map(str), SIZES, st.floats(0, 1e9)), max_size=8)
LIMITS = st.builds(DiskLimits, st.floats(1, 100), st.none() | SIZES)


def model(name: str, size: int, last_used: float) -> Cached:
    return Cached(name, size, last_used)


@given(SIZES, MODELS, SIZES, SIZES, SIZES, LIMITS)
def test_what_is_deleted_is_enough_is_least_recently_used_and_is_no_more_than_needed(
    needed: int, idle: list[Cached], in_use: int, other: int, free: int, limits: DiskLimits
) -> None:
    cached = sum(each.size for each in idle) + in_use
    disk = Disk(cached + other + free, free)
    plan = make_room(needed, idle, cached, disk, limits)
    if isinstance(plan, NoRoom):
        assert plan.short_bytes > 0
        assert needed > 0
        return
    gone, kept = plan.models, [each for each in idle if each not in plan.models]
    freed = sum(each.size for each in gone)
    assert all(one.last_used <= each.last_used for one in gone for each in kept)
    if needed:
        assert free + freed >= needed + MARGIN_BYTES
        assert limits.cache_bytes is None or cached - freed + needed <= limits.cache_bytes
    if gone:
        fewer = freed - gone[-1].size
        pressure = disk.total - free - fewer + needed > disk.total * limits.pressure_percent // 100
        over_cache = limits.cache_bytes is not None and cached - fewer + needed > limits.cache_bytes
        assert pressure or over_cache or free + fewer < needed + MARGIN_BYTES


@given(SIZES, MODELS, SIZES)
def test_a_model_fits_exactly_when_deleting_all_others_would_do(needed: int, idle: list[Cached], free: int) -> None:
    evictable = sum(each.size for each in idle)
    plan = make_room(needed, idle, evictable, Disk(evictable + free, free), DiskLimits(100))
    fits = not needed or free + evictable >= needed + MARGIN_BYTES
    assert isinstance(plan, Evict) is fits


def test_eviction_begins_at_the_pressure_point() -> None:
    idle = [model("new", 20 * GB, 2.0), model("old", 20 * GB, 1.0)]
    at_75, at_95 = Disk(100 * GB, 25 * GB), Disk(100 * GB, 5 * GB)
    assert make_room(10 * GB, idle, 40 * GB, at_75, DiskLimits(85)) == Evict(())
    assert make_room(11 * GB, idle, 40 * GB, at_75, DiskLimits(85)) == Evict((idle[1],))
    assert make_room(4 * GB, idle, 40 * GB, at_95, DiskLimits(85)) == Evict((idle[1],))


def test_a_disk_that_others_fill_does_not_cost_models() -> None:
    idle = [model("ours", GB, 1.0)]
    assert make_room(2 * GB, idle, GB, Disk(100 * GB, 5 * GB), DiskLimits(85)) == Evict(())


def test_the_cache_s_own_bound_holds_on_an_empty_disk() -> None:
    idle, disk = [model("a", 3 * GB, 1.0)], Disk(1000 * GB, 900 * GB)
    assert make_room(2 * GB, idle, 3 * GB, disk, DiskLimits(85, 4 * GB)) == Evict(tuple(idle))
    assert make_room(5 * GB, idle, 3 * GB, disk, DiskLimits(85, 4 * GB)) == NoRoom(GB)
