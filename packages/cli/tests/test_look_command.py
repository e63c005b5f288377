"""`sie models`, `pools`, `status` and `top` against a real router."""

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

import sdk_answers as published
from local_cluster import LocalCluster, local_cluster
from running_sie import AtTerminal, sie
from sdk_server import serving

CLUSTER = """
workers: {pools: {cpu: {minReplicas: 1, maxReplicas: 1}, l4: {}}}
autoscaling: {enabled: false}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster"), CLUSTER) as running:
        running.wait_for_workers("cpu", 1)
        yield running


def ask(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return sie(*arguments, env={"SIE_BASE_URL": cluster.url})


def test_a_pool_is_made_listed_renewed_and_deleted(cluster: LocalCluster) -> None:
    made = ask(cluster, "pools", "create", "tenant-a", "--gpus", "l4=1")
    assert (made.returncode, made.stdout) == (0, "pool tenant-a: pending\n")
    listed = json.loads(ask(cluster, "pools", "list", "--json").stdout)
    assert [(pool["name"], pool["gpus"]) for pool in listed] == [("default", {"cpu": 1}), ("tenant-a", {"l4": 1})]
    renewed = ask(cluster, "pools", "renew", "tenant-a")
    assert (renewed.returncode, renewed.stdout) == (0, "pool tenant-a: renewed\n")
    later = json.loads(ask(cluster, "pools", "list", "--json").stdout)
    assert later[1]["last_renewed"] > listed[1]["last_renewed"]
    assert ask(cluster, "pools", "delete", "tenant-a").returncode == 0
    again = ask(cluster, "pools", "delete", "tenant-a")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "sie: there is no pool 'tenant-a'; sie pools list tells those that there are\n"
    assert ask(cluster, "pools", "renew", "tenant-a").returncode == 1


def test_a_reservation_that_is_no_number_of_workers_is_a_usage_error(cluster: LocalCluster) -> None:
    wrong = ask(cluster, "pools", "create", "x", "--gpus", "l4")
    assert (wrong.returncode, wrong.stderr) == (2, "sie: --gpus 'l4' is not like l4=2\n")


def test_models_are_filtered_by_name_and_told_as_text_or_json(cluster: LocalCluster) -> None:
    found = json.loads(ask(cluster, "models", "HASH", "--json").stdout)
    assert [(model["name"], model["dims"]) for model in found] == [("sie/hash-64", {"dense": 64})]
    assert "sie/hash-64" in ask(cluster, "models", "hash").stdout
    none = ask(cluster, "models", "no such")
    assert (none.returncode, none.stdout) == (1, "")
    assert "holds 'no such'" in none.stderr


def test_status_and_one_frame_of_top_are_plain_text_in_a_pipe(cluster: LocalCluster) -> None:
    for command in (("status",), ("top", "--once"), ("top",)):
        shown = ask(cluster, *command)
        assert shown.returncode == 0
        assert "1 worker " in shown.stdout
        assert "\x1b" not in shown.stdout
    told = json.loads(ask(cluster, "status", "--json").stdout)
    assert told["cluster"]["worker_count"] == 1
    assert {(each["machine_profile"], each["pool"]) for each in told["demand"]} == {
        ("cpu", "default"),
        ("l4", "default"),
    }


@pytest.mark.parametrize("end", ["q", "signal"])
def test_top_at_a_terminal_runs_until_q_or_ctrl_c_and_gives_the_screen_back(cluster: LocalCluster, end: str) -> None:
    with AtTerminal("top", env={"SIE_BASE_URL": cluster.url}, whole=True) as top:
        top.until(lambda: "cpu-0" in top.shown and "q quits" in top.shown)
        if end == "q":
            top.press("q")
            assert top.end() == 0
        else:
            assert top.end(signal.SIGINT) == 130
    assert "\x1b[?25h\x1b[?1049l" in top.shown  # the cursor, and what was there before


def test_without_a_cluster_every_command_is_one_line_and_status_1() -> None:
    for command in (("models",), ("status",), ("top", "--once"), ("pools", "list"), ("pools", "renew", "x")):
        done = sie("--url", "http://127.0.0.1:1", *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "127.0.0.1:1: " in done.stderr
        assert done.stderr.endswith(
            "sie up starts a cluster here, --url or SIE_BASE_URL names another, sie doctor looks closer\n"
        )
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["localhost:8080", "http://", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    for command in (("status",), ("encode", "x", "-m", "a/b"), ("doctor", "-m", "a/b")):
        done = sie(*command, "--url", url)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"sie: the address '{url}' is not like http://host:port or https://host/path\n"


def test_an_option_of_the_command_beats_the_one_before_it_and_that_the_environment(cluster: LocalCluster) -> None:
    nowhere = "http://127.0.0.1:1"
    assert sie("--url", cluster.url, "status", env={"SIE_BASE_URL": nowhere}).returncode == 0
    assert sie("--url", nowhere, "status", "--url", cluster.url).returncode == 0
    assert sie("pools", "list", env={"SIE_BASE_URL": cluster.url}).returncode == 0


@pytest.mark.parametrize("command", [("status",), ("top", "--once")])
def test_a_worker_in_the_place_of_a_router_is_told_as_one(command: tuple[str, ...]) -> None:
    with serving(published.said(200, {"status": "ok", "type": "worker"})) as server:
        done = sie(*command, env={"SIE_BASE_URL": server.url})
    assert done.returncode == 1
    assert f"a SIE worker answers at {server.url}; point --url to the router" in done.stderr


def test_pools_of_a_worker_are_told_to_be_a_router_s() -> None:
    with serving(published.said(404, {"error": {"code": "NOT_FOUND", "message": "no GET /v1/pools here"}})) as server:
        done = sie("pools", "list", env={"SIE_BASE_URL": server.url})
    assert done.returncode == 1
    assert "point --url to the router" in done.stderr


def test_a_misspelt_model_is_answered_with_the_nearest_names_alone(cluster: LocalCluster) -> None:
    near = sie("encode", "a text", "-m", "all-MiniLM-L6-v2", env={"SIE_BASE_URL": cluster.url})
    assert near.stderr.rstrip().endswith("did you mean sentence-transformers/all-MiniLM-L6-v2?")
    far = sie("encode", "a text", "-m", "nobody/knows", env={"SIE_BASE_URL": cluster.url})
    assert far.stderr.rstrip().endswith("is not in the catalogue; sie models lists what is served")
