"""`sie up --detach` and `sie down`, as a user runs them."""

import json
import signal
from pathlib import Path

import pytest

from cluster_log import children_of, eventually, is_alive, is_free, kill
from running_sie import sie

CLUSTER = "workers: {pools: {cpu: {minReplicas: 1, maxReplicas: 1}}}\nautoscaling: {enabled: false}\n"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(tmp_path)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


def test_a_cluster_in_the_background_answers_is_alone_and_leaves_nothing_after_down(
    env: dict[str, str], file: Path
) -> None:
    started = sie("up", "--detach", "-f", str(file), "--port", "0", "--json", env=env)
    assert started.returncode == 0, started.stderr
    running = json.loads(started.stdout)
    try:
        assert sie("--url", running["urls"][0], "status", env=env).returncode == 0
        second = sie("up", "--detach", "-f", str(file), env=env)
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == f"sie: a cluster runs already, on {running['urls'][0]}; sie down stops it\n"
        children = children_of(running["pid"])
    finally:
        done = sie("down", env=env)
    assert (done.returncode, done.stdout) == (0, "everything is stopped\n")
    assert not any(is_alive(pid) for pid in {running["pid"], *children})
    assert is_free(int(running["urls"][0].rpartition(":")[2]))
    again = sie("down", "--json", env=env)
    assert (again.returncode, json.loads(again.stdout)) == (0, {"stopped": None})


async def test_a_killed_cluster_is_no_cluster_and_another_may_start(env: dict[str, str], file: Path) -> None:
    command = ("up", "-d", "-f", str(file), "-p", "0", "--json")
    first = json.loads(sie(*command, env=env).stdout)
    kill(first["pid"], signal.SIGKILL)
    await eventually(lambda: not is_alive(first["pid"]))
    assert sie("down", env=env).stdout == "no cluster runs in the background\n"
    assert sie(*command, env=env).returncode == 0
    assert sie("down", env=env).stdout == "everything is stopped\n"


def test_what_cannot_start_says_why_in_one_line(env: dict[str, str], file: Path) -> None:
    file.write_text("workers: {}")
    done = sie("up", "--detach", "-f", str(file), env=env)
    assert done.returncode == 1
    assert "enables no pool" in done.stderr
    assert len(done.stderr.splitlines()) == 1
