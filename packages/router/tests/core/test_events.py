from collections import Counter
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router_builders import L4, MODEL, ask, catalog, fleet, pool, seen, url
from sie_protocol.errors import ErrorCode
from sie_protocol.status import STALE_AFTER_S, GpuStatus, WorkerStatus
from sie_router.core.demand import wanted
from sie_router.core.events import (
    MAX_NAME,
    CatalogPut,
    Event,
    Missed,
    PoolGone,
    PoolPut,
    PoolsListed,
    Tick,
    WorkerGone,
    WorkerJudged,
    WorkerLost,
    WorkerSeen,
    apply,
)
from sie_router.core.fleet import OTHER, Fleet, Group, Source
from sie_router.core.health import Health, Phase
from sie_router.core.index import empty_fleet, reindexed
from sie_router.core.retry_after import is_coming
from sie_router.core.route import Forward, Provision, Reject, decide, serving_workers

A100 = Group("a100", "default")
names = st.sampled_from(["a", "b", "c"])
pools = st.builds(
    lambda name, gpus, bundle, created, renewed: pool(
        name, gpus, bundle=bundle, created_at=created, last_renewed=created + renewed
    ),
    st.sampled_from(["x", "y"]),
    st.dictionaries(st.sampled_from(["l4", "a100", "h100"]), st.integers(1, 2), min_size=1),
    st.sampled_from([None, "default", "vision"]),
    st.sampled_from([1.0, 2.0]),
    st.floats(0, 10),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        lambda name, profile, ready, draining, loaded, depth: seen(
            name, profile=profile, ready=ready, draining=draining, loaded=loaded, depth=depth
        ),
        names,
        st.sampled_from(["l4", "A100", "h100", ""]),
        st.booleans(),
        st.booleans(),
        st.sets(st.just(MODEL)),
        st.integers(0, 9),
    ),
    st.builds(lambda name: WorkerLost(url(name)), names),
    st.builds(lambda name: WorkerGone(url(name)), names),
    st.builds(
        lambda name, phase, until: WorkerJudged(url(name), Health(phase=phase, until=until)),
        names,
        st.sampled_from(Phase),
        st.floats(0, 100),
    ),
    st.builds(
        Missed, st.sampled_from([L4, A100, Group("h100", "default")]), st.sampled_from(["default", "x"]), st.just(60.0)
    ),
    st.builds(PoolPut, pools),
    st.builds(PoolGone, st.sampled_from(["x", "y"])),
    st.lists(pools, max_size=2, unique_by=lambda each: each.name).map(lambda each: PoolsListed(tuple(each))),
    st.just(Tick()),
)


@given(st.lists(st.tuples(events, st.floats(0, 20)), max_size=30))
def test_a_log_of_events_replays_to_the_same_fleet(log: list[tuple[Event, float]]) -> None:
    def replay() -> Fleet:
        state, now = empty_fleet([L4, A100]), 0.0
        for event, passed in log:
            now += passed
            state = apply(state, event, now)
        return state

    assert replay() == replay()


class Cluster(RuleBasedStateMachine):
    """Anything may happen to a cluster in any order; what the router believes stays sound."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = empty_fleet([L4, A100])
        self.now = 0.0

    @rule(event=events, passed=st.floats(0, 15))
    def happen(self, event: Event, passed: float) -> None:
        self.now += passed
        before = self.fleet
        workers = dict(before.workers)
        self.fleet = apply(before, event, self.now)
        assert before.workers == workers

    @rule()
    def restart_everything(self) -> None:
        for address in list(self.fleet.workers):
            self.fleet = apply(self.fleet, WorkerGone(address), self.now)
        assert not self.fleet.index.scopes

    @invariant()
    def the_index_is_what_a_fresh_one_would_be(self) -> None:
        fresh = reindexed(self.fleet).index
        index = self.fleet.index
        assert (fresh.scopes, fresh.soon, fresh.owners) == (index.scopes, index.soon, index.owners)

    @invariant()
    def whoever_finds_nobody_is_helped_soon_exactly_when_those_who_come_would_help(self) -> None:
        workers = self.fleet.workers
        here = {each: replace(its, is_ready=True, is_connected=True) for each, its in workers.items() if its.is_coming}
        then = reindexed(replace(self.fleet, workers={**workers, **here}))
        for name in (None, "x", "y"):
            for profile in (None, "l4", "a100", "h100"):
                asks = ask(pool=name, profile=profile)
                if not serving_workers(self.fleet, asks):
                    assert is_coming(self.fleet, asks) is bool(here and serving_workers(then, asks))

    @invariant()
    def every_healthy_worker_is_in_one_scope_except_the_ejected_who_are_never_the_larger_half(self) -> None:
        healthy = {each: worker for each, worker in self.fleet.workers.items() if worker.is_healthy}
        indexed: list[str] = []
        groups = Counter((self.fleet.pool_of(each), each.profile.lower(), each.bundle) for each in healthy.values())
        for pool_name, scope in self.fleet.index.scopes.items():
            for (profile, bundle), ready in scope.by_group.items():
                assert 2 * len(ready.urls) >= groups.pop((pool_name, profile, bundle))
                indexed.extend(ready.urls)
        assert not groups
        assert len(indexed) == len(set(indexed))
        assert set(indexed) <= set(healthy)
        assert all(healthy[each].health.is_ejected for each in healthy.keys() - set(indexed))

    @invariant()
    def a_request_never_leaves_its_pool(self) -> None:
        for name in ("default", "x", "y"):
            for profile in (None, "l4", "a100"):
                decision = decide(self.fleet, ask(pool=name, profile=profile), {}, 0.5)
                if isinstance(decision, Forward):
                    assert self.fleet.pool_of(decision.worker) == name
                if isinstance(decision, Provision):
                    assert decision.pool == name
                    assert not self.fleet.has_healthy(decision.group, name)
                if name not in self.fleet.pools and name != "default":
                    assert isinstance(decision, Reject)

    @invariant()
    def nobody_is_served_and_nothing_is_wanted_before_all_was_heard(self) -> None:
        for source in Source:
            early = replace(self.fleet, unheard=frozenset({source}))
            for name in (None, "default", "x"):
                decision = decide(early, ask(pool=name), {}, 0.5)
                assert isinstance(decision, Reject)
                assert decision.code is ErrorCode.STORE_UNAVAILABLE

    @invariant()
    def only_pools_that_exist_own_workers(self) -> None:
        assert set(self.fleet.index.owners.values()) <= set(self.fleet.pools)
        for url_of, owner in self.fleet.index.owners.items():
            assert self.fleet.workers[url_of].profile.lower() in self.fleet.pools[owner].gpus

    @invariant()
    def the_same_intent_and_workers_in_another_order_give_the_same_assignment(self) -> None:
        other = empty_fleet([L4, A100])
        listed = PoolsListed(tuple(self.fleet.pools.values())[::-1])
        workers = dict(list(self.fleet.workers.items())[::-1])
        assert apply(replace(other, workers=workers), listed, self.now).index.owners == self.fleet.index.owners

    @invariant()
    def demand_is_bounded_by_what_is_configured_and_reserved_and_unmet(self) -> None:
        series = wanted(self.fleet, self.now)
        assert set(self.fleet.demand) <= set(series)
        assert {group for group, _ in series} == {L4, A100}
        assert {name for _, name in series} <= {"default", *self.fleet.pools}
        for key, value in series.items():
            assert value == 0 or not self.fleet.has_healthy(*key)

    @invariant()
    def labels_are_configured_or_other(self) -> None:
        assert {worker.group for worker in self.fleet.workers.values()} <= {L4, A100, OTHER}


TestCluster = Cluster.TestCase


def test_a_snapshot_cannot_be_changed() -> None:
    state = fleet(seen())
    with pytest.raises(FrozenInstanceError):
        state.workers = {}  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        state.workers[url("w")].is_ready = False  # type: ignore[misc]


def test_a_frame_that_changes_only_the_queue_keeps_the_index() -> None:
    before = fleet(seen(depth=1))
    after = apply(before, seen(depth=2), 1.0)
    assert after.workers[url("w")].queue_depth == 2
    assert after.index is before.index


@pytest.mark.parametrize("silence_s", [STALE_AFTER_S + 0.1, 100.0])
def test_a_silent_worker_gets_no_requests_until_it_speaks_again(silence_s: float) -> None:
    state = apply(fleet(seen()), Tick(), silence_s)
    assert not state.has_healthy(L4)
    assert apply(state, seen(), silence_s).has_healthy(L4)


def test_a_heartbeat_in_time_keeps_a_worker() -> None:
    assert apply(fleet(seen()), Tick(), STALE_AFTER_S - 0.1).has_healthy(L4)


def test_a_lost_worker_is_remembered_and_a_gone_one_is_not() -> None:
    state = fleet(seen())
    assert not apply(state, WorkerLost(url("w")), 1).workers[url("w")].is_healthy
    assert not apply(state, WorkerGone(url("w")), 1).workers
    assert apply(state, WorkerLost("http://never:1"), 1) is state


def test_profiles_are_labelled_in_their_configured_spelling() -> None:
    worker = fleet(seen(profile="L4")).workers[url("w")]
    assert (worker.profile, worker.group) == ("l4", L4)


def test_a_name_that_would_break_a_header_is_cleaned() -> None:
    worker = fleet(seen("w")).workers[url("w")]
    assert worker.name == "w"
    bad = apply(fleet(), seen("a\r\nset-cookie: é"), 0)
    assert [each.name for each in bad.workers.values()] == ["aset-cookie:"]


def test_the_catalogue_is_replaced_as_a_whole() -> None:
    state = fleet(CatalogPut(catalog()))
    assert [model.sie_id for model, _ in state.models.listed()] == [MODEL, "org/clip"]


def test_a_renewal_keeps_the_index() -> None:
    before = fleet(seen(), PoolPut(pool("a", last_renewed=1)))
    after = apply(before, PoolPut(pool("a", last_renewed=2)), 1)
    assert after.pools["a"].last_renewed == 2
    assert after.index is before.index


def test_late_news_of_a_pool_changes_nothing() -> None:
    state = fleet(PoolPut(pool("a", {"l4": 2}, last_renewed=2)))
    assert apply(state, PoolPut(pool("a", {"l4": 1}, last_renewed=1)), 1).pools["a"].gpus == {"l4": 2}
    remade = pool("a", created_at=3, last_renewed=1)
    assert apply(state, PoolPut(remade), 1).pools["a"] == remade


def test_what_no_worker_can_have_is_not_believed() -> None:
    told = WorkerStatus(
        ready=True,
        name="w",
        bundle="b" * 5000 + "\r\n",
        bundle_config_hash="h" * 5000,
        gpu_count=-5,
        gpus=(GpuStatus(memory_used_bytes=-1, memory_total_bytes=-1),),
    )
    worker = apply(empty_fleet(), WorkerSeen("http://w:1", told), 0.0).workers["http://w:1"]
    assert (worker.gpu_count, worker.memory_used_bytes, worker.memory_total_bytes) == (0, 0, 0)
    assert (worker.bundle, worker.bundle_config_hash) == ("b" * MAX_NAME, "h" * MAX_NAME)
