from hypothesis import given
from hypothesis import strategies as st

from router_builders import L4, MODEL, ask, catalog, fleet, pool, seen, url
from sie_router.core.events import CatalogPut, PoolPut, Tick, WorkerLost, apply
from sie_router.core.explain import Why, explain
from sie_router.core.fleet import Fleet, Group
from sie_router.core.pools import Caller
from sie_router.core.route import Ask, Forward, Provision, Reject, decide

GROUPS = (L4, Group("a100", "default"), Group("l4", "vision"))
names = st.sampled_from(["a", "b", None])


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    state = fleet(CatalogPut(catalog()), groups=GROUPS)
    for number in range(draw(st.integers(0, 6))):
        facts = {
            "profile": draw(st.sampled_from(["l4", "a100"])),
            "bundle": draw(st.sampled_from(["default", "vision"])),
            "ready": draw(st.booleans()),
            "draining": draw(st.booleans()),
            "depth": draw(st.integers(0, 30)),
            "loaded": draw(st.sampled_from([(), (MODEL,)])),
        }
        state = apply(state, seen(f"w-{number}", **facts), draw(st.floats(0, 5)))
        if draw(st.booleans()):
            state = apply(state, WorkerLost(url(f"w-{number}")), 5)
    for name in draw(st.sets(st.sampled_from(["a", "b"]))):
        state = apply(state, PoolPut(pool(name, {"l4": 1}, owner=name)), 6)
    return apply(state, Tick(), draw(st.sampled_from([6.0, 12.0])))


asks = st.builds(
    lambda model, profile, name: ask(model, profile=profile, pool=name),
    st.sampled_from([MODEL, "org/clip", "none/such"]),
    st.sampled_from([None, "l4", "a100", "h100"]),
    names,
)


@given(fleets(), asks, st.floats(0, 1, exclude_max=True))
def test_an_explanation_agrees_with_the_decision(state: Fleet, wanted: Ask, draw: float) -> None:
    found = explain(state, wanted, {}, draw, 100)
    assert found.decision == decide(state, wanted, {}, draw)
    eligible = {each.worker.url for each in found.considered if each.why is Why.ELIGIBLE}
    match found.decision:
        case Forward(worker):
            assert worker.url in eligible
        case Provision():
            assert not eligible
        case Reject():
            assert not eligible
    if found.plan is not None:
        assert eligible == {each for ready in found.plan.candidates() for each in ready.urls}
        assert sum(found.counts.values()) == len(state.workers)


@given(fleets(), asks)
def test_workers_of_other_tenants_are_counted_and_never_shown(state: Fleet, wanted: Ask) -> None:
    found = explain(state, wanted, {}, 0.5, 100)
    mine = (wanted.pool or "default").lower()
    assert {state.pool_of(each.worker) for each in found.considered} <= {mine}


def test_each_reason_is_named() -> None:
    state = fleet(
        seen("l4-0"),
        seen("l4-1"),
        seen("a100-2", profile="a100"),
        seen("l4-3", bundle="other"),
        seen("l4-4", draining=True),
        seen("l4-5", ready=False),
        seen("l4-6"),
        seen("l4-7"),
        WorkerLost(url("l4-6")),
        PoolPut(pool("tenant")),
    )
    found = explain(state, ask(profile="l4"), {url("l4-1"): 3}, 0.0, 100)
    assert {each.worker.name: each.why for each in found.considered} == {
        "l4-1": Why.ELIGIBLE,
        "l4-7": Why.ELIGIBLE,
        "a100-2": Why.WRONG_PROFILE,
        "l4-3": Why.WRONG_BUNDLE,
        "l4-4": Why.DRAINING,
        "l4-5": Why.NOT_READY,
        "l4-6": Why.DISCONNECTED,
    }
    assert found.counts[Why.OTHER_POOL] == 1
    assert found.considered[0].load == 3
    assert len(explain(state, ask(), {}, 0.0, 2).considered) == 2


def test_a_foreign_pool_is_not_explained() -> None:
    state = fleet(seen("l4-0"), PoolPut(pool("tenant", owner="alice")))
    found = explain(state, Ask(ask().model, pool="tenant", caller=Caller("bob")), {}, 0.0, 9)
    assert isinstance(found.decision, Reject)
    assert (found.plan, found.considered) == (None, ())
