import pytest

from router_builders import L4, ask, fleet, url
from sie_protocol.catalog import BundleConfig, EncodeTask, ModelConfig, ProfileConfig, Tasks, VectorTask, build_catalog
from sie_protocol.errors import ErrorCode
from sie_protocol.status import ModelStatus, WorkerStatus
from sie_router.api.views import model_info
from sie_router.core.events import CatalogPut, Event, WorkerSeen
from sie_router.core.route import Forward, Reject, decide

CATALOG = build_catalog(
    [
        ModelConfig(
            "org/m",
            Tasks(encode=EncodeTask(dense=VectorTask(8))),
            {"default": ProfileConfig("dense"), "short": ProfileConfig("dense"), "Big": ProfileConfig("big")},
        )
    ],
    [BundleConfig("default", ("dense",), 1), BundleConfig("large", ("big",), 2)],
)


def worker(name: str, *models: ModelStatus, bundle: str = "default") -> Event:
    status = WorkerStatus(ready=True, name=name, machine_profile="l4", bundle=bundle, models=models)
    return WorkerSeen(url(name), status)


@pytest.mark.parametrize("state", ["loaded", "loading"])
@pytest.mark.parametrize("name", ["org/m", "ORG/M:default", "org/m:Short"])
def test_a_profile_goes_where_the_weights_are_that_it_shares(name: str, state: str) -> None:
    holder = worker("holder", ModelStatus(name="org/m", aliases=("org/m:short",), state=state))
    snapshot = fleet(CatalogPut(CATALOG), worker("a"), holder, worker("z"), groups=(L4,))
    for draw in (0.0, 0.4, 0.99):
        decision = decide(snapshot, ask(name), {}, draw)
        assert isinstance(decision, Forward)
        assert decision.worker.name == "holder"
        assert decision.model_id == ("org/m:short" if "S" in name else "org/m")


def test_a_profile_runs_in_the_bundle_that_has_its_adapter() -> None:
    snapshot = fleet(CatalogPut(CATALOG), worker("a"), worker("b", bundle="large"), groups=(L4,))
    decision = decide(snapshot, ask("org/m:big"), {}, 0.0)
    assert isinstance(decision, Forward)
    assert (decision.worker.name, decision.model_id) == ("b", "org/m:Big")


def test_a_profile_that_does_not_exist_is_refused_and_models_are_listed_once() -> None:
    snapshot = fleet(CatalogPut(CATALOG), worker("a"), groups=(L4,))
    decision = decide(snapshot, ask("org/m:none"), {}, 0.0)
    assert isinstance(decision, Reject)
    assert decision.code is ErrorCode.MODEL_NOT_FOUND
    assert [model.sie_id for model, _ in snapshot.models.listed()] == ["org/m"]
    whole, profile = model_info(snapshot, "org/m"), model_info(snapshot, "org/m:short")
    assert whole is not None
    assert profile == {**whole, "name": "org/m:short"}
    assert model_info(snapshot, "org/m:none") is None
