from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sdk_answers as published
from sdk_server import Reply
from sdk_virtual_time import Run, Scripted, answer, run
from sie_sdk import capacity, errors
from sie_sdk.messages import Loss, Lost, Send
from sie_sdk.retry import Terms
from sie_sdk.types import CapacityInfo

QUESTION = Terms(timeout_s=30, budget_s=30, wait_for_capacity=False)
WAITING = Terms(timeout_s=30, budget_s=60, gpu="l4")
EMPTY = published.health(configured=["l4"])
READY = published.health(published.worker("l4"), configured=["l4"])


def ask(reply: Reply, gpu: str | None = None) -> Run[CapacityInfo]:
    return run(capacity.get_capacity(QUESTION, gpu), iter([Scripted(answer(reply))]))


def counted(reply: Reply, gpu: str | None = None) -> int:
    done = ask(reply, gpu)
    assert done.result is not None, done.error
    return done.result["worker_count"]


def test_capacity_is_that_of_the_whole_cluster() -> None:
    done = ask(published.health(published.worker("l4"), published.worker("t4", healthy=False), configured=["l4"]))
    assert done.result is not None
    assert (done.result["worker_count"], done.result["gpu_count"], done.result["status"]) == (1, 1, "healthy")
    assert (done.result["configured_gpu_types"], done.result["live_gpu_types"]) == (["l4"], ["l4"])
    assert [worker["name"] for worker in done.result["workers"]] == ["worker-l4", "worker-t4"]


@pytest.mark.parametrize("gpu", ["l4", "L4", "pool/l4"])
def test_capacity_of_a_profile_counts_its_healthy_workers_only(gpu: str) -> None:
    reply = published.health(
        published.worker("L4"), published.worker("l4", healthy=False), published.worker("a100-40gb"), configured=["l4"]
    )
    assert counted(reply, gpu) == 1


def test_a_profile_finds_its_spot_variant_exactly_when_only_that_is_configured() -> None:
    spot = published.worker("l4-spot")
    assert counted(published.health(spot, configured=["l4-spot"]), "L4") == 1
    assert counted(published.health(spot, configured=["l4", "l4-spot"]), "l4") == 0
    assert counted(published.health(spot, configured=["l4", "l4-spot"]), "l4-spot") == 1


@given(st.sampled_from(["l4", "L4-SPOT", "t4"]), st.sets(st.sampled_from(["l4", "l4-spot", "t4-spot", "T4"])))
def test_a_configured_profile_means_itself(profile: str, configured: set[str]) -> None:
    resolved = capacity.resolve_profile(profile, configured | {profile})
    assert resolved == profile.lower()


@pytest.mark.parametrize("kind", ["router", "gateway"])
def test_old_and_new_routers_are_known(kind: str) -> None:
    assert counted(published.health(published.worker("l4"), kind=kind)) == 1


def test_a_worker_is_no_router() -> None:
    done = ask(published.said(200, {"status": "ok", "type": "worker"}))
    assert isinstance(done.error, errors.RequestError)
    assert done.error.code == "NOT_A_ROUTER"


def test_a_server_that_tells_no_health_is_no_router() -> None:
    absent = published.said(404, {"detail": {"code": "NOT_FOUND", "message": "there is nothing at /health"}})
    asked = (capacity.get_capacity(QUESTION, None), capacity.wait_for_capacity(WAITING, "l4", 5))
    for plan in asked:
        done = run(plan, repeat(Scripted(answer(absent))))
        assert isinstance(done.error, errors.RequestError)
        assert done.error.code == "NOT_A_ROUTER"


def test_waiting_looks_until_a_healthy_worker_is_there() -> None:
    sick = published.health(published.worker("l4", healthy=False), configured=["l4"])
    script = [Scripted(answer(each)) for each in (EMPTY, sick, READY)]
    done = run(capacity.wait_for_capacity(WAITING, "l4", 5), iter(script))
    assert done.result is not None
    assert done.result["worker_count"] == 1
    assert [event.reason for event in done.waits] == ["PROVISIONING"] * 2
    assert done.elapsed_s == 10
    assert {each.request.path for each in done.effects if isinstance(each, Send)} == {"/health"}


@pytest.mark.parametrize("gpu", ["h100", "tenant/h100"])
def test_waiting_for_a_profile_that_the_cluster_does_not_have_ends_at_once(gpu: str) -> None:
    done = run(capacity.wait_for_capacity(WAITING, gpu, 5), repeat(Scripted(answer(EMPTY))))
    assert isinstance(done.error, errors.ServerError)
    assert done.error.code == "GPU_NOT_CONFIGURED"
    assert "no machine profile 'h100'; it has: l4" in str(done.error)
    assert done.elapsed_s == 0


@pytest.mark.parametrize(
    ("configured", "worker"), [([], "t4"), (["t4"], "h100"), (["h100-spot"], "t4")], ids=["any", "sick", "spot"]
)
def test_waiting_goes_on_where_the_profile_may_come_to_be(configured: list[str], worker: str) -> None:
    sick = published.health(published.worker(worker, healthy=False), configured=configured)
    done = run(capacity.wait_for_capacity(WAITING, "h100", 5), repeat(Scripted(answer(sick))))
    assert isinstance(done.error, errors.ProvisioningError)


def test_waiting_survives_a_router_that_restarts() -> None:
    script = [Scripted(answer(EMPTY)), Scripted(Lost(Loss.CONNECT_FAILED, "refused")), Scripted(answer(READY))]
    assert run(capacity.wait_for_capacity(WAITING, "l4", 5), iter(script)).error is None


def test_waiting_in_vain_tells_that_looking_wakes_nobody() -> None:
    done = run(capacity.wait_for_capacity(WAITING, "l4", 5), repeat(Scripted(answer(EMPTY))))
    assert isinstance(done.error, errors.ProvisioningError)
    assert done.error.gpu == "l4"
    assert "model=" in str(done.error)
    assert done.elapsed_s == 55


def test_warming_up_asks_for_the_model_first_because_that_is_demand() -> None:
    script = [Scripted(answer(each)) for each in (published.PROVISIONING_503, published.VECTOR, READY)]
    done = run(capacity.warm_up(WAITING, "l4", "org/m"), iter(script))
    assert done.result is not None
    sent = [each.request for each in done.effects if isinstance(each, Send)]
    assert [each.path for each in sent] == ["/v1/encode/org/m", "/v1/encode/org/m", "/health"]
    assert dict(sent[0].headers)["X-SIE-MACHINE-PROFILE"] == "l4"


@pytest.mark.parametrize("interval_s", [0, -1, float("nan")])
def test_an_interval_is_a_positive_number(interval_s: float) -> None:
    with pytest.raises(ValueError, match="poll_interval_s"):
        capacity.wait_for_capacity(WAITING, "l4", interval_s)
