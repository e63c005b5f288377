import random
from collections import Counter

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from router_builders import L4, MODEL, ask, catalog, fleet, pool, seen, url
from sie_protocol.catalog import Catalog, LoraConfig
from sie_protocol.errors import ErrorCode
from sie_router.core.events import CatalogPut, PoolPut, WorkerSeen
from sie_router.core.fleet import Fleet, Group
from sie_router.core.pools import Caller
from sie_router.core.route import Ask, Forward, Provision, Reject, decide
from sie_router.core.score import COMFORT, SPILL_SLACK, load, spill_bound

GROUPS = (L4, Group("a100", "default"), Group("l4-spot", "vision"))

workers = st.lists(
    st.builds(
        lambda number, profile, bundle, ready, draining, depth, loaded, loading: seen(
            f"w{number}",
            profile=profile,
            bundle=bundle,
            ready=ready,
            draining=draining,
            depth=depth,
            loaded=loaded,
            loading=loading,
        ),
        st.integers(0, 12),
        st.sampled_from(["l4", "L4", "a100", "l4-spot"]),
        st.sampled_from(["default", "vision"]),
        st.booleans(),
        st.booleans(),
        st.integers(0, 40),
        st.sets(st.sampled_from([MODEL, "org/clip"])),
        st.sets(st.sampled_from([MODEL, "org/clip"])),
    ),
    max_size=8,
    unique_by=lambda event: event.url,
)
asks = st.builds(
    lambda model, profile, bundle: ask(model, profile=profile, bundle=bundle),
    st.sampled_from([MODEL, MODEL.upper(), "org/clip", "none/such"]),
    st.sampled_from([None, "l4", "L4", "a100", "h100"]),
    st.sampled_from([None, "default", "vision"]),
)
loads = st.dictionaries(st.integers(0, 12).map(lambda number: url(f"w{number}")), st.integers(1, 60))
draws = st.floats(0, 1, exclude_max=True)


@given(workers, asks, loads, draws, st.randoms())
def test_the_order_of_workers_is_irrelevant(
    events: list[WorkerSeen], wanted: Ask, inflight: dict[str, int], draw: float, shuffler: random.Random
) -> None:
    shuffled = list(events)
    shuffler.shuffle(shuffled)
    put = CatalogPut(catalog())
    one, two = fleet(put, *events, groups=GROUPS), fleet(put, *shuffled, groups=GROUPS)
    assert decide(one, wanted, inflight, draw) == decide(two, wanted, inflight, draw)


@given(workers, asks, loads, draws)
def test_a_request_runs_only_where_it_was_asked_to_and_only_on_healthy_workers(
    events: list[WorkerSeen], wanted: Ask, inflight: dict[str, int], draw: float
) -> None:
    state = fleet(CatalogPut(catalog()), *events, groups=GROUPS)
    decision = decide(state, wanted, inflight, draw)
    if isinstance(decision, Forward):
        worker = decision.worker
        assert worker.is_healthy
        assert wanted.profile is None or worker.profile.lower() == wanted.profile.lower()
        bundles = state.models.resolve(wanted.model).bundles
        assert worker.bundle in bundles


@given(workers, asks, loads, draws)
def test_nothing_is_provisioned_while_somebody_eligible_is_there(
    events: list[WorkerSeen], wanted: Ask, inflight: dict[str, int], draw: float
) -> None:
    state = fleet(CatalogPut(catalog()), *events, groups=GROUPS)
    decision = decide(state, wanted, inflight, draw)
    if isinstance(decision, Provision):
        assert decision.group in GROUPS
        bundles = state.models.resolve(wanted.model).bundles
        profile = wanted.profile
        assert not [
            worker
            for worker in state.workers.values()
            if worker.is_healthy
            and worker.bundle in bundles
            and profile in (None, worker.profile, worker.profile.upper())
        ]


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), draws)
def test_a_holder_shares_its_model_exactly_when_it_is_busier_than_the_bound(
    depth: int, sent: int, other_depth: int, other_sent: int, draw: float
) -> None:
    state = fleet(seen("holder", loaded=[MODEL], depth=depth), seen("other", depth=other_depth))
    inflight = {url("holder"): sent, url("other"): other_sent}
    decision = decide(state, ask(), inflight, draw)
    assert isinstance(decision, Forward)
    is_over = depth + sent > spill_bound(other_depth + other_sent)
    assert decision.worker.name == ("other" if is_over else "holder")


def test_while_a_second_worker_loads_the_model_nobody_else_is_made_to() -> None:
    state = fleet(seen("holder", loaded=[MODEL], depth=10 * SPILL_SLACK), seen("loader", loading=[MODEL]), seen("cold"))
    names = {decision_name(state, draw / 10) for draw in range(10)}
    assert names == {"holder"}


def test_without_a_holder_those_that_load_the_model_come_first() -> None:
    state = fleet(seen("loader", loading=[MODEL], depth=50), seen("cold"))
    assert decision_name(state, 0.3) == "loader"


def with_lora() -> Catalog:
    known = catalog()
    own = known.models[MODEL.lower()]
    profiles = {**own.profiles, "law": replace(own.profiles["default"], lora=LoraConfig(hf_id="org/law"))}
    return replace(known, models={**known.models, MODEL.lower(): replace(own, profiles=profiles)})


def test_a_lora_goes_where_it_is_loaded_else_where_its_model_is_else_anywhere() -> None:
    put, wanted = CatalogPut(with_lora()), ask(f"{MODEL}:law")
    cold, below = seen("cold"), seen("below", loaded=[MODEL], depth=3)
    above = seen("above", loaded=[MODEL, f"{MODEL}:law"], depth=3)
    for others, expected in (((cold, below, above), "above"), ((cold, below), "below"), ((cold,), "cold")):
        state = fleet(put, *others)
        for draw in (0.0, 0.5, 0.99):
            decision = decide(state, wanted, {}, draw)
            assert isinstance(decision, Forward)
            assert (decision.worker.name, decision.model_id) == (expected, f"{MODEL}:law")
    assert isinstance(decide(fleet(put, cold, below), replace(wanted, loaded_only=True), {}, 0.0), Provision)


@given(st.integers(2, 40), draws)
@hypothesis.settings(deadline=None, max_examples=25)
def test_what_one_worker_can_do_is_done_by_the_lowest_ordinal(count: int, draw: float) -> None:
    state = fleet(*(seen(f"worker-l4-{number}", loaded=[MODEL]) for number in range(count)))
    assert decision_name(state, draw) == "worker-l4-0"


def ordinals(count: int, under_way: int, requests: int, seed: int) -> Counter[int]:
    """How often each ordinal was chosen, with never more than so many requests under way besides the new one."""
    state = fleet(*(seen(f"worker-l4-{number}", loaded=[MODEL]) for number in range(count)))
    draw, inflight, chosen = random.Random(seed), Counter[str](), Counter[int]()
    unanswered: list[str] = []
    for _ in range(requests):
        decision = decide(state, ask(), inflight, draw.random())
        assert isinstance(decision, Forward)
        chosen[decision.worker.ordinal] += 1
        inflight[decision.worker.url] += 1
        unanswered.append(decision.worker.url)
        if len(unanswered) > under_way:
            inflight[unanswered.pop(draw.randrange(len(unanswered)))] -= 1
    return chosen


@given(st.integers(2, 100), st.integers(0, 2**32))
@hypothesis.settings(deadline=None, max_examples=25)
def test_what_two_workers_can_do_is_done_by_the_two_lowest_ordinals(count: int, seed: int) -> None:
    assert set(ordinals(count, 2 * COMFORT - 1, 50, seed)) <= {0, 1}


@given(st.integers(16, 100), st.integers(0, 2**32))
@hypothesis.settings(deadline=None, max_examples=25)
def test_under_low_steady_load_the_highest_ordinals_get_next_to_nothing(count: int, seed: int) -> None:
    chosen = ordinals(count, count // 4, 300, seed)
    assert sum(times for ordinal, times in chosen.items() if ordinal >= count * 3 // 4) <= 15


@given(st.integers(2, 12), st.integers(0, 2**32))
def test_two_choices_keep_outstanding_requests_nearly_level(count: int, seed: int) -> None:
    state = fleet(*(seen(f"w{number}", loaded=[MODEL]) for number in range(count)))
    draw, inflight = random.Random(seed), Counter[str]()
    for _ in range(count * 20):
        decision = decide(state, ask(), inflight, draw.random())
        assert isinstance(decision, Forward)
        inflight[decision.worker.url] += 1
    assert max(inflight.values()) - min(inflight[url(f"w{number}")] for number in range(count)) <= 12


def test_stale_queue_figures_do_not_herd_requests_to_one_worker() -> None:
    state = fleet(seen("idle", loaded=[MODEL]), seen("busy", loaded=[MODEL], depth=10))
    inflight = Counter[str]()
    for number in range(40):
        decision = decide(state, ask(), inflight, number / 40)
        assert isinstance(decision, Forward)
        inflight[decision.worker.url] += 1
    loads_now = [load(worker, inflight) for worker in state.workers.values()]
    assert abs(loads_now[0] - loads_now[1]) <= 1


def test_a_plain_profile_means_its_spot_variant_only_where_it_does_not_exist_itself() -> None:
    spot_only = fleet(groups=[Group("l4-spot", "default")])
    assert decide(spot_only, ask(profile="l4"), {}, 0) == Provision(Group("l4-spot", "default"), True, MODEL)
    both = fleet(seen("w", profile="l4-spot"), groups=[Group("l4-spot", "default"), L4])
    assert decide(both, ask(profile="L4"), {}, 0) == Provision(L4, True, MODEL)


def test_an_unknown_profile_is_refused_with_what_is_configured() -> None:
    decision = decide(fleet(groups=GROUPS), ask(profile="h100"), {}, 0)
    assert isinstance(decision, Reject)
    assert decision.code is ErrorCode.GPU_NOT_CONFIGURED
    assert decision.details["configured_gpu_types"] == ["l4", "a100", "l4-spot"]
    assert "a100:default" in decision.message


def test_a_profile_without_a_group_for_the_bundle_is_refused_rather_than_awaited_for_ever() -> None:
    state = fleet(CatalogPut(catalog()), groups=[L4])
    decision = decide(state, ask("org/clip", profile="l4"), {}, 0)
    assert isinstance(decision, Reject)
    assert decision.code is ErrorCode.GPU_NOT_CONFIGURED


def test_without_a_profile_the_first_configured_group_that_fits_is_provisioned() -> None:
    state = fleet(CatalogPut(catalog()), groups=GROUPS)
    assert decide(state, ask(), {}, 0) == Provision(L4, True, MODEL)
    assert decide(state, ask("org/clip"), {}, 0) == Provision(GROUPS[2], True, "org/clip")


def test_without_a_profile_any_worker_of_a_bundle_that_runs_the_model_will_do() -> None:
    state = fleet(CatalogPut(catalog()), seen("v", profile="a100", bundle="vision"), groups=GROUPS)
    decision = decide(state, ask(MODEL.upper()), {}, 0)
    assert isinstance(decision, Forward)
    assert (decision.worker.name, decision.model_id) == ("v", MODEL)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (ask("none/such"), ErrorCode.MODEL_NOT_FOUND),
        (ask("org/clip", bundle="default"), ErrorCode.BUNDLE_CONFLICT),
        (ask(pool="tenant"), ErrorCode.POOL_NOT_FOUND),
    ],
)
def test_what_can_never_be_served_is_rejected(wanted: Ask, code: ErrorCode) -> None:
    decision = decide(fleet(CatalogPut(catalog())), wanted, {}, 0)
    assert isinstance(decision, Reject)
    assert decision.code is code


def test_the_default_pool_may_be_named() -> None:
    assert isinstance(decide(fleet(seen()), ask(pool="Default"), {}, 0), Forward)


def test_a_router_that_knows_nothing_refuses_no_profile() -> None:
    decision = decide(fleet(groups=()), ask(profile="l4"), {}, 0)
    assert decision == Provision(Group("l4", "default"), False, MODEL)


def test_pool_and_shared_requests_never_share_a_worker() -> None:
    state = fleet(seen("l4-0", loaded=[MODEL]), seen("l4-1"), PoolPut(pool("tenant")))
    for step in range(10):
        assert decision_name(state, step / 10, pool="tenant") == "l4-0"
        assert decision_name(state, step / 10, pool="TENANT", profile="L4") == "l4-0"
        assert decision_name(state, step / 10) == "l4-1"
        assert decision_name(state, step / 10, pool="default") == "l4-1"


def test_a_pool_without_workers_waits_for_its_own_and_never_takes_others() -> None:
    a100 = Group("a100", "default")
    state = fleet(seen("a100-0", profile="a100"), seen("l4-0"), PoolPut(pool("tenant", {"l4": 1})), groups=[a100, L4])
    assert decide(state, ask(), {}, 0) == Forward(state.workers[url("a100-0")], MODEL)
    assert decide(state, ask(profile="l4"), {}, 0) == Provision(L4, True, MODEL, reserved=1)
    idle = fleet(seen("a100-0", profile="a100"), PoolPut(pool("tenant", {"l4": 1})), groups=[a100, L4])
    assert decide(idle, ask(pool="tenant"), {}, 0) == Provision(L4, True, MODEL, "tenant")


@pytest.mark.parametrize(("profile", "model"), [("a100", MODEL), ("l4", "org/clip"), (None, "org/clip")])
def test_what_a_pool_does_not_reserve_is_refused_with_what_it_does(profile: str | None, model: str) -> None:
    state = fleet(CatalogPut(catalog()), PoolPut(pool("tenant", {"l4": 1})), groups=GROUPS)
    decision = decide(state, ask(model, profile=profile, pool="tenant"), {}, 0)
    assert isinstance(decision, Reject)
    assert decision.code is ErrorCode.GPU_NOT_CONFIGURED
    assert decision.details == {"configured_gpu_types": ["l4"], "pool": "tenant"}
    assert "it reserves: l4" in decision.message


def test_within_a_pool_a_plain_profile_means_the_spot_variant_that_it_reserves() -> None:
    spot = Group("l4-spot", "default")
    state = fleet(PoolPut(pool("tenant", {"l4-spot": 1})), groups=[L4, spot])
    assert decide(state, ask(pool="tenant", profile="l4"), {}, 0) == Provision(spot, True, MODEL, "tenant")


def test_nobody_routes_into_the_pool_of_another_token() -> None:
    state = fleet(seen(), PoolPut(pool("tenant", owner="alice")))
    mine = replace(ask(pool="tenant"), caller=Caller("alice"))
    assert isinstance(decide(state, mine, {}, 0), Forward)
    assert isinstance(decide(state, replace(mine, caller=Caller("root", is_admin=True)), {}, 0), Forward)
    decision = decide(state, replace(mine, caller=Caller("bob")), {}, 0)
    assert isinstance(decision, Reject)
    assert decision.code is ErrorCode.FORBIDDEN


def decision_name(state: Fleet, draw: float, **wanted: str) -> str:
    decision = decide(state, ask(**wanted), {}, draw)
    assert isinstance(decision, Forward)
    return decision.worker.name


def test_a_request_without_a_pool_is_told_how_many_workers_others_reserve() -> None:
    held = fleet(seen("l4-0"), seen("l4-1"), seen("l4-2", ready=False), PoolPut(pool("tenant", {"l4": 2})))
    assert decide(held, ask(), {}, 0) == Provision(L4, True, MODEL, reserved=2)
    assert decide(fleet(), ask(), {}, 0) == Provision(L4, True, MODEL)
