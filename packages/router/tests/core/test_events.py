from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router_builders import L4, MODEL, catalog, fleet, seen, url
from sie_protocol.status import STALE_AFTER_S
from sie_router.core.demand import wanted
from sie_router.core.events import CatalogPut, Event, Missed, Tick, WorkerGone, WorkerJudged, WorkerLost, apply
from sie_router.core.fleet import OTHER, Fleet, Group, build_index, empty_fleet
from sie_router.core.health import Health, Phase

A100 = Group("a100", "default")
names = st.sampled_from(["a", "b", "c"])
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
        assert not self.fleet.index.by_group

    @invariant()
    def the_index_is_what_a_fresh_one_would_be(self) -> None:
        fresh = build_index(self.fleet.workers, self.fleet.configured, self.fleet.profiles)
        assert fresh.by_group == self.fleet.index.by_group
        assert fresh.by_bundle == self.fleet.index.by_bundle

    @invariant()
    def the_healthy_are_indexed_except_the_ejected_who_are_never_the_larger_half(self) -> None:
        by_group = self.fleet.index.by_group
        healthy = {each: worker for each, worker in self.fleet.workers.items() if worker.is_healthy}
        indexed = {each for ready in by_group.values() for each in ready.urls}
        assert indexed <= set(healthy)
        assert all(healthy[each].health.is_ejected for each in healthy.keys() - indexed)
        for key, ready in by_group.items():
            members = [each for each in healthy.values() if (each.profile.lower(), each.bundle) == key]
            assert 2 * len(ready.urls) >= len(members)
        assert {(each.profile.lower(), each.bundle) for each in healthy.values()} == set(by_group)

    @invariant()
    def demand_is_bounded_by_configuration_and_unmet(self) -> None:
        assert {group for group, _ in self.fleet.demand} <= {L4, A100}
        for (group, _), value in wanted(self.fleet, self.now).items():
            assert value == 0 or not self.fleet.has_healthy(group)

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
