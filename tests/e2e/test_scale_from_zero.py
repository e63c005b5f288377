"""The main job, over real processes and a real model: a cluster at zero answers everybody."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from local_cluster import LocalCluster, eventually, local_cluster
from sie_sdk import ProvisioningError, SIEAsyncClient, SIEClient
from sie_sdk.types import Item

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CLUSTER = """
router: {retryAfterSeconds: 1}
workers:
  pools:
    l4: {minReplicas: 0, maxReplicas: 2}
    a100-40gb: {minReplicas: 0, maxReplicas: 1}
    a100-80gb: {minReplicas: 0, maxReplicas: 1}
    warm: {minReplicas: 2, maxReplicas: 2}
autoscaling: {enabled: true, pollingInterval: 1, cooldownPeriod: 600, scaleDownStabilization: 600}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster"), CLUSTER) as running:
        yield running


def curl(*arguments: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers (lower-case names) and JSON body of one curl call."""
    command = ["curl", "--silent", "--show-error", "--include", "--http1.1", *arguments]
    head, _, body = subprocess.run(command, check=True, capture_output=True).stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, msgspec.json.decode(body)


def encode_with_curl(
    cluster: LocalCluster, body: str, model: str = MODEL, profile: str = "warm"
) -> tuple[int, Any, Any]:
    return curl(
        *("-X", "POST", f"{cluster.url}/v1/encode/{model}", "-H", "Content-Type: application/json"),
        *("-H", "Accept: application/json", "-H", f"X-SIE-MACHINE-PROFILE: {profile}", "-d", body),
    )


async def test_fifty_clients_at_zero_all_get_their_own_vectors_and_nobody_an_error(cluster: LocalCluster) -> None:
    texts = [
        f"Sentence number {n} about {topic}" for n in range(10) for topic in ("tea", "rain", "trains", "moss", "ink")
    ]

    async def one(text: str) -> Any:
        async with SIEAsyncClient(cluster.url) as client:
            return await client.encode(MODEL, {"text": text}, gpu="l4", provision_timeout_s=90)

    assert cluster.workers("l4") == []
    results = await asyncio.gather(*(one(text) for text in texts))
    async with SIEAsyncClient(cluster.url) as client:
        alone = await client.encode(MODEL, [Item(text=text) for text in texts], gpu="l4")
    for together, single in zip(results, alone, strict=True):
        np.testing.assert_allclose(together["dense"], single["dense"], atol=1e-5)


def test_the_first_answer_at_zero_is_202_with_a_time_to_come_back(cluster: LocalCluster) -> None:
    status, headers, body = encode_with_curl(cluster, '{"items": [{"text": "Hello world"}]}', profile="a100-40gb")
    assert status == 202
    assert int(headers["retry-after"]) >= 1
    assert (body["status"], body["gpu"]) == ("provisioning", "a100-40gb")


def test_a_client_that_does_not_want_to_wait_is_told_at_once(cluster: LocalCluster) -> None:
    with SIEClient(cluster.url) as client, pytest.raises(ProvisioningError) as refusal:
        client.encode("sie/hash-64", Item(text="Hello world"), gpu="a100-80gb", wait_for_capacity=False)
    assert refusal.value.retry_after is not None


def test_curl_gets_json_when_it_sends_and_asks_for_json(cluster: LocalCluster) -> None:
    def answered() -> Any:
        status, _, body = encode_with_curl(cluster, '{"items": [{"id": "a", "text": "Hello world"}]}')
        return body if status == 200 else None

    body = eventually(answered)
    assert body["model"] == MODEL
    assert body["items"][0]["id"] == "a"
    assert len(body["items"][0]["dense"]["values"]) == 384


@pytest.mark.parametrize(
    ("model", "profile", "body", "status", "code"),
    [
        ("nobody/knows", "warm", '{"items": [{"text": "a"}]}', 404, "MODEL_NOT_FOUND"),
        (MODEL, "h100", '{"items": [{"text": "a"}]}', 503, "GPU_NOT_CONFIGURED"),
        (MODEL, "nobody/warm", '{"items": [{"text": "a"}]}', 404, "POOL_NOT_FOUND"),
        (MODEL, "warm", '{"items": [{"text": 5}]}', 400, "INVALID_INPUT"),
        (MODEL, "warm", '{"items": [', 400, "INVALID_INPUT"),
        (MODEL, "warm", '{"items": []}', 400, "INVALID_INPUT"),
    ],
)
def test_a_refusal_says_what_is_wrong_in_the_one_envelope(
    cluster: LocalCluster, model: str, profile: str, body: str, status: int, code: str
) -> None:
    cluster.wait_for_workers("warm", 2)
    answer, headers, content = encode_with_curl(cluster, body, model, profile)
    assert (answer, headers["x-sie-error-code"]) == (status, code)
    assert content["error"] == content["detail"]
    assert content["error"]["code"] == code
    assert content["error"]["message"]


def test_a_worker_killed_under_load_is_invisible_to_clients(cluster: LocalCluster) -> None:
    workers = cluster.wait_for_workers("warm", 2)
    stop, failures, served = threading.Event(), [], [0] * 8

    def load(slot: int) -> None:
        with SIEClient(cluster.url) as client:
            while not stop.is_set():
                try:
                    client.encode(MODEL, Item(text=f"text {served[slot]} of client {slot}"), gpu="warm")
                except Exception as error:  # noqa: BLE001 - whatever a client sees is a failure of this test
                    failures.append(error)
                    return
                served[slot] += 1

    threads = [threading.Thread(target=load, args=(slot,)) for slot in range(len(served))]
    for thread in threads:
        thread.start()
    eventually(lambda: failures or all(count >= 10 for count in served))
    cluster.kill_worker(workers[0])
    at_kill = list(served)
    eventually(lambda: failures or all(now >= before + 20 for now, before in zip(served, at_kill, strict=True)))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_killed_worker_is_replaced(cluster: LocalCluster) -> None:
    cluster.wait_for_workers("warm", 2)


def test_every_pool_has_its_demand_series_whether_or_not_anybody_asked(cluster: LocalCluster) -> None:
    def demand() -> list[str]:
        lines = httpx.get(f"{cluster.url}/metrics").text.splitlines()
        return [line for line in lines if line.startswith("sie_router_pending_demand{")]

    assert {f'machine_profile="{name}"' for name in ("l4", "a100-40gb", "a100-80gb", "warm")} == {
        part for line in demand() for part in line.split("{")[1].split("}")[0].split(",") if "machine_profile" in part
    }


def test_interrupting_sie_up_leaves_no_process_behind(tmp_path: Path) -> None:
    with local_cluster(tmp_path, "workers: {pools: {l4: {minReplicas: 1, maxReplicas: 1}}}") as running:
        worker = running.wait_for_workers("l4", 1)[0]
    port = int(worker["url"].rsplit(":", 1)[1])
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")
