"""The recipes of docs/integrations, block by block, against a live worker, with the frameworks' own packages.

Runs in an environment of its own (`make test-integrations`): the frameworks pin older clients than our tests use. The
worker is the one of the development environment, as a process. Rerankers are asked for with the model whose weights are
there without a network.
"""

import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER = os.environ.get("SIE_TEST_SERVER", str(ROOT / ".venv" / "bin" / "sie-server"))  # noqa: TID251 - of make
HERE, ELSEWHERE = "sentence-transformers/all-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L-6-v2"
DIMS, START_S = 384, 60.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("worker") / "log"
    with log.open("wb") as output:
        command = [SERVER, "serve", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own loopback address
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def play(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run every Python block of a recipe in one namespace, as a reader who copies them does."""
    monkeypatch.setenv("SIE_BASE_URL", url)
    text = (ROOT / "docs" / "integrations" / f"{name}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace(ELSEWHERE, HERE), f"{name}.md", "exec"), names)  # noqa: S102 - our own documentation
    return names


def closest(names: dict[str, Any]) -> int:
    """Which of the documents' vectors is closest to the query's."""
    vectors, query = names["vectors"], names["query"]
    assert len(query) == DIMS
    assert [len(vector) for vector in vectors] == [DIMS] * 2
    products = [sum(a * b for a, b in zip(vector, query, strict=True)) for vector in vectors]
    return int(products.index(max(products)))


def test_langchain_embeds_and_reranks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = play("langchain", url, monkeypatch)
    assert closest(names) == 0
    assert [each["index"] for each in names["best"]] == [1]


def test_llama_index_embeds_and_reranks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = play("llama-index", url, monkeypatch)
    assert closest(names) == 0
    assert [node.text for node in names["best"]] == ["Bread needs flour."]


def test_haystack_embeds_and_ranks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = play("haystack", url, monkeypatch)
    assert closest(names) == 1
    assert [document.content for document in names["best"]] == ["Bread needs flour."]
