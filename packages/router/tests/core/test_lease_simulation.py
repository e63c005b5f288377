from router_pool_sim import broken_by
from sie_router.core.leases import MAX_SKEW_S


def test_leases_hold_on_routers_that_disagree_about_the_time() -> None:
    assert broken_by(range(150)) == {}


def test_the_simulation_sees_clocks_that_are_further_apart_than_allowed() -> None:
    laws = [law for broken in broken_by(range(30), 8 * MAX_SKEW_S).values() for law in broken]
    assert any("was deleted" in law for law in laws)
