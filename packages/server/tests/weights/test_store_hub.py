"""Models from a hub on loopback, through the hub's own client."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fake_hub import COMMIT, FakeHub, fake_hub
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.hub import Hub
from sie_server.weights.locks import StoppedError
from weights_kit import MIB, Kit, files_of, refused, source, write_model

FETCH = """
import sys
from pathlib import Path
from sie_server.weights.hub import Hub
from weights_kit import Kit, source
pinned = Kit(Path(sys.argv[1]), [Hub(endpoint=sys.argv[2])]).store().pin(source())
print(pinned.folder)
"""
BOUND_S = 90.0


def kit_of(tmp_path: Path, hub: FakeHub) -> Kit:
    return Kit(tmp_path / "cache", [Hub("token-of-ours", hub.url)])


def child(tmp_path: Path, hub: FakeHub, **env: str) -> subprocess.Popen[str]:
    """Another process that fetches org/m into the same cache."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore", **env}  # noqa: TID251 - for a child
    command = [sys.executable, "-c", FETCH, str(tmp_path / "cache"), hub.url]
    return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + BOUND_S
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} did not grow to {size}"
        time.sleep(0.01)


def test_a_fetch_takes_what_is_needed_once_and_neither_pickles_nor_code(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", more={"idf.json": "{}", "spm.model": "s"})
    wanted = files_of(model)
    for unwanted in ("pytorch_model.bin", "modeling_evil.py", "README.md", "model.onnx"):
        (model / unwanted).write_text("no")
    with fake_hub({"org/m": model}) as hub:
        kit = kit_of(tmp_path, hub)
        pinned = kit.store().pin(source(revision=COMMIT))
        asked = len(hub.asked)
        again = kit.store().pin(source(revision=COMMIT))
        assert len(hub.asked) == asked
        assert all(COMMIT in path for path in hub.asked)
        assert not hub.leaks
    assert files_of(pinned.folder) == files_of(again.folder) == wanted
    assert [each.kind for each in kit.fetched] == ["hub"]
    assert kit.fetched[0].size == sum(map(len, wanted.values()))
    pinned.release()
    again.release()


def test_revisions_are_kept_apart(tmp_path: Path) -> None:
    with fake_hub({"org/m": write_model(tmp_path / "repo")}) as hub:
        kit = kit_of(tmp_path, hub)
        for revision in (None, "v1", "refs/pr/1"):
            kit.store().pin(source(revision=revision)).release()
    assert kit.names() == {"org--m@main", "org--m@v1", "org--m@refs--pr--1"}


@pytest.mark.parametrize(
    ("status", "code", "expected", "named"),
    [
        (403, "GatedRepo", ErrorClass.GATED, "accept its licence on the hub and give the worker HF_TOKEN"),
        (403, "", ErrorClass.GATED, "check its HF_TOKEN"),
        (401, "RepoNotFound", ErrorClass.NOT_FOUND, "the hub has no 'org/m'"),
        (404, "RepoNotFound", ErrorClass.NOT_FOUND, "the hub has no 'org/m'"),
        (404, "RevisionNotFound", ErrorClass.NOT_FOUND, "the hub has no 'org/m'"),
        (500, "", ErrorClass.NETWORK, "cannot be fetched"),
    ],
)
def test_each_refusal_of_the_hub_has_its_class(
    tmp_path: Path, status: int, code: str, expected: ErrorClass, named: str
) -> None:
    with fake_hub({"org/m": (status, code)}) as hub:
        found, message = refused(kit_of(tmp_path, hub).store(), source())
    assert found is expected
    assert named in message


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    found, message = refused(Kit(tmp_path, [Hub(endpoint="http://127.0.0.1:9")]).store(), source())
    assert found is ErrorClass.NETWORK
    assert "SIE_CLUSTER_CACHE" in message
    assert "weights_path" in message


def test_a_connection_that_breaks_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", 24 * MIB)
    with fake_hub({"org/m": model}) as hub:
        hub.cuts["model.safetensors"] = [12 * MIB]
        pinned = kit_of(tmp_path, hub).store().pin(source())
        assert hub.ranges["model.safetensors"] == [0, 10 * MIB]  # the client hands on 10 MiB at a time
    assert files_of(pinned.folder) == files_of(model)
    pinned.release()


@pytest.mark.parametrize("fault", ["too short", "too long", "damaged"])
def test_a_file_that_is_not_as_announced_never_counts(tmp_path: Path, fault: str) -> None:
    with fake_hub({"org/m": write_model(tmp_path / "repo")}) as hub:
        if fault == "damaged":
            hub.damaged.add("model.safetensors")
        else:
            hub.sizes["model.safetensors"] = 3 * MIB + (10 if fault == "too short" else -10)
        kit = kit_of(tmp_path, hub)
        found, _ = refused(kit.store(), source())
        assert found is ErrorClass.NETWORK
        assert not kit.names()
        hub.damaged.clear()
        hub.sizes.clear()
        kit.store().pin(source()).release()  # nothing of the failure is in the way
    assert kit.names() == {"org--m@main"}


def test_pickles_are_refused_before_anything_is_fetched_and_fetched_where_allowed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", more={"sparse_linear.pt": "s", "optimizer.pt": "no"})
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with fake_hub({"org/m": model}) as hub:
        kit = kit_of(tmp_path, hub)
        found, message = refused(kit.store(), source())
        assert found is ErrorClass.DEPENDENCY
        assert "allow_pickle: true" in message
        assert not hub.ranges
        pinned = kit.store().pin(source(allow_pickle=True))
        assert {"pytorch_model.bin", "sparse_linear.pt"} <= set(files_of(pinned.folder))
        assert "optimizer.pt" not in files_of(pinned.folder)
        pinned.release()


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", 24 * MIB)
    part = tmp_path / "cache" / ".partial" / "org--m@main" / "model.safetensors.part"
    with fake_hub({"org/m": model}) as hub:
        hub.gates["model.safetensors"] = threading.Event()
        with child(tmp_path, hub) as process:
            wait_for(part, 10 * MIB)
            process.send_signal(signal.SIGKILL)
        kept = part.stat().st_size
        hub.gates.pop("model.safetensors").set()
        kit = kit_of(tmp_path, hub)
        store = kit.store()
        store.clean()
        assert not kit.names()
        pinned = store.pin(source())
        assert hub.ranges["model.safetensors"] == [0, kept]
    assert files_of(pinned.folder) == files_of(model)
    assert not part.parent.exists()
    pinned.release()


def test_two_processes_that_want_one_model_fetch_it_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo")
    with fake_hub({"org/m": model}) as hub, child(tmp_path, hub) as one, child(tmp_path, hub) as other:
        outputs = [process.communicate(timeout=BOUND_S) for process in (one, other)]
        assert [process.returncode for process in (one, other)] == [0, 0], outputs
        assert hub.ranges["model.safetensors"] == [0]
    folders = {out.strip() for out, _ in outputs}
    assert folders == {str(tmp_path / "cache" / "org--m@main")}


def test_threads_that_want_one_model_fetch_it_once(tmp_path: Path) -> None:
    with fake_hub({"org/m": write_model(tmp_path / "repo")}) as hub, ThreadPoolExecutor(4) as pool:
        store = kit_of(tmp_path, hub).store()
        pinned_models = list(pool.map(store.pin, [source()] * 4))
        assert hub.ranges["model.safetensors"] == [0]
        for pinned in pinned_models:
            pinned.release()


def test_a_worker_that_stops_ends_its_download_and_keeps_what_came(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", 40 * MIB)
    part = tmp_path / "cache" / ".partial" / "org--m@main" / "model.safetensors.part"
    with fake_hub({"org/m": model}) as hub, ThreadPoolExecutor(2) as pool:
        gate = hub.gates["model.safetensors"] = threading.Event()
        kit = kit_of(tmp_path, hub)
        store = kit.store()
        fetching, waiting = pool.submit(store.pin, source()), pool.submit(store.pin, source())
        wait_for(part, 10 * MIB)
        store.close()
        with pytest.raises(StoppedError):
            waiting.result(BOUND_S)
        gate.set()
        with pytest.raises(StoppedError):
            fetching.result(BOUND_S)
        assert part.stat().st_size < 40 * MIB
        kit.store().pin(source()).release()
    assert kit.names() == {"org--m@main"}


def test_the_client_s_own_offline_switch_is_obeyed(tmp_path: Path) -> None:
    with fake_hub({"org/m": write_model(tmp_path / "repo")}) as hub:
        _, errors = child(tmp_path, hub, HF_HUB_OFFLINE="1").communicate(timeout=BOUND_S)
        assert not hub.asked
    assert "OfflineModeIsEnabled" in errors
    assert "weights_path" in errors


def test_a_lora_is_fetched_beside_the_model_of_the_same_repository(tmp_path: Path) -> None:
    more = {"adapter_config.json": "{}", "adapter_model.safetensors": "not read here"}
    repository = write_model(tmp_path / "repo", more=more)
    with fake_hub({"org/m": repository}) as hub:
        kit = kit_of(tmp_path, hub)
        lora = kit.store().pin(replace(source(), lora=True))
        model = kit.store().pin(source())
    assert set(files_of(lora.folder)) == set(more)
    assert "model.safetensors" in files_of(model.folder)
    assert kit.names() == {"org--m@main", "org--m@main+lora"}
