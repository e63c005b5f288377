"""The quickstart's own way, on a real cluster: install, ask from zero, get a vector, go back to zero."""

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from sentence_transformers import SentenceTransformer

from cluster_load import Timeline
from deployed import DIMENSIONS, ITEM, MODEL, POOL, Release, is_ready
from lab.bucket import weights_of_the_package
from sie_protocol.headers import MACHINE_PROFILE
from sie_sdk import SIEClient

Array = npt.NDArray[np.float32]


def reference() -> Array:
    model = SentenceTransformer(str(weights_of_the_package()), device="cpu")
    return np.asarray(model.encode(ITEM["text"], normalize_embeddings=True))


@pytest.mark.timeout(900)
def test_everything_is_ready_after_one_helm_upgrade_install(release: Release) -> None:
    routers = release.pods("router")
    assert [is_ready(each) for each in routers] == [True, True]
    release.wait_until(lambda: release.scaled_object().get("Ready") == "True")
    release.wait_until_empty()


@pytest.mark.timeout(900)
def test_the_first_request_starts_a_worker_and_an_idle_pool_ends(release: Release, timeline: Timeline) -> None:
    release.wait_until_empty()
    with release.forwarded() as url, timeline:
        first = httpx.post(f"{url}/v1/encode/{MODEL}", headers={MACHINE_PROFILE: POOL}, json={"items": [ITEM]})
        assert (first.status_code, first.headers["retry-after"]) == (202, "2")
        timeline.watch(
            {
                "Prometheus has scraped the demand": lambda: any(
                    release.query(f'sie_router_pending_demand{{namespace="{release.namespace}"}}')
                ),
                "KEDA has raised the StatefulSet": lambda: release.replicas() == 1,
                "the container runs": lambda: any("running" in each for each in release.container_states()),
                "the worker is Ready": lambda: any(map(is_ready, release.workers())),
                "the model is loaded": lambda: any(each["loaded_models"] for each in release.health()["workers"]),
            }
        )
        with SIEClient(url) as client:
            result = client.encode(MODEL, ITEM, gpu=POOL, wait_for_capacity=True, provision_timeout_s=600)
        timeline.mark("the client has its vector")
        assert result["dense"].shape == (DIMENSIONS,)
        release.wait_until_empty()
        timeline.mark("the pool is empty again")
    np.testing.assert_allclose(result["dense"], reference(), atol=1e-5)
