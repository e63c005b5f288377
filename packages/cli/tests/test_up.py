"""The real thing: `sie up` with the real router and the real worker, spoken to through the SDK."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from cluster_log import children_of, eventually, is_alive, is_free, kill
from running_up import sie_up
from sie_cli import clusterfile
from sie_cli.up import check_bundles
from sie_protocol import headers
from sie_sdk import SIEAsyncClient, WaitEvent

MODEL = "sie/hash-64"
CLUSTER = """
router: {retryAfterSeconds: 1}
workers: {pools: {cpu: {maxReplicas: 2}, l4: {}}}
autoscaling: {pollingInterval: 0.2, syncPeriod: 1, cooldownPeriod: %s, scaleDownStabilization: 1}
"""


def write(folder: Path, *, cooldown_s: float) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(CLUSTER % cooldown_s)
    return path


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    return write(tmp_path, cooldown_s=60)


async def test_a_request_starts_a_worker_a_killed_one_is_replaced_and_ctrl_c_leaves_nothing(cluster_file: Path) -> None:
    waits: list[WaitEvent] = []
    async with sie_up(cluster_file) as up, SIEAsyncClient(up.url, on_wait=waits.append) as client:
        result = await client.encode(MODEL, {"text": "hello"}, gpu="cpu", provision_timeout_s=30)
        assert result["dense"].shape == (64,)
        assert waits[0].reason == "PROVISIONING"
        first = int((await up.line(r"cpu-0: process (\d+) started"))[1])
        assert any("pool cpu: demand 1 > 0: 0 -> 1" in line for line in up.lines)

        kill(first, signal.SIGKILL)
        second = int((await up.line(r"cpu-0: process (\d+) started"))[1])
        again = await client.encode(MODEL, {"text": "hello"}, gpu="cpu", provision_timeout_s=30)
        assert (again["dense"] == result["dense"]).all()
        assert is_alive(second)

        assert up.process.pid is not None
        children = children_of(up.process.pid)
        assert second in children
        assert len(children) == 2  # router and worker
        assert await up.end(signal.SIGINT) == 0
        assert not any(is_alive(pid) for pid in children)
        assert is_free(up.port)


async def test_a_cluster_that_asks_for_tokens_scales_from_zero_as_well(cluster_file: Path) -> None:
    tokens = {"SIE_AUTH_MODE": "static", "SIE_AUTH_TOKENS": "token-a, token-b"}
    async with sie_up(cluster_file, **tokens) as up, SIEAsyncClient(up.url, api_key="token-b") as client:
        assert (await client.encode(MODEL, {"text": "hello"}, gpu="cpu"))["dense"].shape == (64,)
        await up.line("pool cpu: demand 1 > 0: 0 -> 1")
        assert await up.end(signal.SIGINT) == 0


async def test_without_a_worker_the_answer_is_202_and_a_pool_nobody_uses_is_empty_after_its_cooldown(
    tmp_path: Path,
) -> None:
    async with sie_up(write(tmp_path, cooldown_s=0.5)) as up, httpx.AsyncClient(base_url=up.url) as http:
        answer = await http.post(
            headers.operation_path("encode", MODEL),
            json={"items": [{"text": "hello"}]},
            headers={headers.MACHINE_PROFILE: "l4"},
        )
        assert answer.status_code == 202
        assert answer.headers[headers.RETRY_AFTER] == "1"
        assert answer.json()["status"] == "provisioning"
        await up.line(r"l4-0: ready")
        await up.line(r"pool l4: not in use for \d+ s, longer than the cooldown: 1 -> 0")
        await up.line(r"l4-0: stopped")
        assert await up.end(signal.SIGTERM) == 0


async def test_when_up_itself_is_killed_its_processes_end_and_its_port_is_free(cluster_file: Path) -> None:
    async with sie_up(cluster_file) as up, SIEAsyncClient(up.url) as client:
        await client.encode(MODEL, {"text": "hello"}, gpu="cpu", provision_timeout_s=30)
        children = children_of(up.process.pid)
        assert len(children) == 2
        assert await up.end(signal.SIGKILL) == -signal.SIGKILL
        await eventually(lambda: not any(is_alive(pid) for pid in children))
        await eventually(lambda: is_free(up.port))  # a killed process keeps its sockets until its last thread is gone


async def test_a_profile_without_a_pool_is_refused_and_starts_nothing(cluster_file: Path) -> None:
    async with sie_up(cluster_file) as up, httpx.AsyncClient(base_url=up.url) as http:
        answers = await asyncio.gather(
            *(
                http.post(headers.operation_path("encode", MODEL), headers={headers.MACHINE_PROFILE: "h100"})
                for _ in range(3)
            )
        )
        assert {answer.status_code for answer in answers} == {503}
        assert await up.end(signal.SIGINT) == 0
        assert not any("h100" in line or "->" in line for line in up.lines)


def test_a_bundle_that_is_nowhere_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("{name: Own, adapters: [dense]}")
    file = clusterfile.decode(b"workers: {pools: {cpu: {bundle: own}, l4: {bundle: nope}}}")
    with pytest.raises(ValueError, match=f"pool 'l4' has bundle 'nope', which {tmp_path} does not hold: own"):
        check_bundles(file, tmp_path)
    check_bundles(file, tmp_path / "none")
    check_bundles(clusterfile.decode(b"workers: {pools: {cpu: {bundle: own}}}"), tmp_path)
