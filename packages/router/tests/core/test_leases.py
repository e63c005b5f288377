from hypothesis import given
from hypothesis import strategies as st

from router_builders import pool
from sie_router.core.leases import LEASE_S, MAX_SKEW_S, SKEW_SHARE, expired, is_expired, unless_renewed

moments = st.floats(0, 2e9)


@given(moments, st.floats(0, LEASE_S), st.floats(-MAX_SKEW_S, MAX_SKEW_S))
def test_no_allowed_clock_ends_a_lease_early(renewed: float, later: float, skew: float) -> None:
    assert not is_expired(pool("a", last_renewed=renewed), renewed + min(later, LEASE_S - 1e-3) + skew)


@given(moments, st.floats(LEASE_S + 2 * MAX_SKEW_S + 1, 1e6), st.floats(-MAX_SKEW_S, MAX_SKEW_S))
def test_every_allowed_clock_ends_a_lease_in_the_end(renewed: float, later: float, skew: float) -> None:
    lapsed = pool("a", last_renewed=renewed)
    assert expired([lapsed], renewed + later + skew) == (lapsed,)


@given(moments, st.floats(1, 1e5), st.floats(0, 1e6))
def test_a_lease_of_any_length_ends_after_its_length_and_the_allowed_skew(
    renewed: float, lease_s: float, age: float
) -> None:
    kept = pool("a", last_renewed=renewed)
    running = (renewed + age) - renewed <= lease_s + lease_s * SKEW_SHARE
    assert is_expired(kept, renewed + age, lease_s) is not running
    assert (unless_renewed(kept, renewed + age, lease_s) is kept) is running
