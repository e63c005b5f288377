"""The real command with LoRAs on top of one model: from a folder, and from a cluster's cache."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from served_worker import Process, process
from sie_protocol.arrays import Array, decode_reply
from sie_server.weights.cluster import open_cluster_cache
from sie_server.weights.snapshot import Snapshot
from tiny_bert import WIDTH, Shape, write_checkpoint
from tiny_loras import lora_oracle, write_lora
from weights_kit import manifest_of

TEXTS = ["the cat sat on a mat", "two dogs", "a cat saw the two dogs running far away"]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Site:
    """A worker and the folders behind its catalogue."""

    worker: Process
    http: httpx.Client
    base: Path
    loras: dict[str, Path]

    def ask(self, name: str, **options: Any) -> httpx.Response:
        """One encode call."""
        body = {"items": [{"text": text} for text in TEXTS], "params": {"options": options}}
        return self.http.post(f"/v1/encode/{name}", json=body)

    def answer(self, name: str, **options: Any) -> tuple[httpx.Response, list[httpx.Response]]:
        """The answer of an encode call that is repeated while anything loads, and the refusals until then."""
        refusals: list[httpx.Response] = []
        while (reply := self.ask(name, **options)).status_code == 503:
            refusals.append(reply)
        return reply, refusals

    def vectors(self, name: str, **options: Any) -> Array:
        """Dense vectors [texts, dims]."""
        reply, _ = self.answer(name, **options)
        assert reply.status_code == 200, reply.text
        return np.stack([item["dense"]["values"] for item in decode_reply(reply.content)["items"]])

    def oracle(self, lora: str | None) -> Array:
        """What PEFT gives."""
        return lora_oracle(self.base, self.loras[lora] if lora else None, TEXTS, "mean", 64)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    base = write_checkpoint(root / "base", Shape(normalize=True))
    loras = {name: write_lora(base, root / name, ["query", "value", "dense"], seed) for seed, name in enumerate("abc")}
    snapshot, url = Snapshot("org/b", REVISION, lora=True), f"file://{root / 'cluster'}"
    assert open_cluster_cache(url, create=True).publish(snapshot, manifest_of(loras["b"], snapshot), loras["b"])
    model = {
        "sie_id": "org/m",
        "weights_path": str(base),
        "tasks": {"encode": {"dense": {"dim": WIDTH}}},
        "profiles": {
            "default": {"adapter": "dense"},
            "a": {"extends": "default", "lora": {"weights_path": str(loras["a"])}},
            "b": {"extends": "default", "lora": {"hf_id": "org/b", "hf_revision": REVISION}},
            "c": {"extends": "default", "lora": {"weights_path": str(loras["c"])}},
            "gone": {"extends": "default", "lora": {"weights_path": str(root / "gone")}},
        },
    }
    for path, content in {"models/m": model, "bundles/default": {"name": "default", "adapters": ["dense"]}}.items():
        file = root / f"{path}.yaml"
        file.parent.mkdir()
        file.write_text(json.dumps(content))
    flags = ["--models-dir", str(root / "models"), "--bundles-dir", str(root / "bundles"), "--no-hf-fallback"]
    env = {"SIE_LOCAL_CACHE": str(root / "local"), "SIE_MAX_LORAS_PER_MODEL": "2"}
    with process(*flags, "--cluster-cache", url, env=env) as worker, worker.client() as http:
        yield Site(worker, http, base, loras)


def test_a_lora_is_loading_and_then_answers_and_never_with_the_bare_model_s_vectors(site: Site) -> None:
    site.vectors("org/m")
    reply, refusals = site.answer("org/m:c")  # which no other test asks for
    assert {each.headers["x-sie-error-code"] for each in refusals} == {"LORA_LOADING"}
    assert {each.headers["retry-after"] for each in refusals} == {"1"}
    assert reply.status_code == 200
    found = np.stack([item["dense"]["values"] for item in decode_reply(reply.content)["items"]])
    np.testing.assert_allclose(found, site.oracle("c"), atol=1e-5)
    for name in ("a", "b"):
        np.testing.assert_allclose(site.vectors(f"org/m:{name}"), site.oracle(name), atol=1e-5)
    np.testing.assert_allclose(site.vectors("org/m"), site.oracle(None), atol=1e-5)
    assert np.abs(site.oracle("a") - site.oracle(None)).max() > 0.05


@pytest.mark.parametrize(
    "options", [{"lora": "b"}, {"lora_id": "b"}, {"lora": "org/b"}, {"profile": "b"}, {"profile": "b", "lora": "org/b"}]
)
def test_published_ways_to_ask_for_a_lora_give_its_vectors(site: Site, options: dict[str, str]) -> None:
    np.testing.assert_allclose(site.vectors("org/m", **options), site.oracle("b"), atol=1e-5)


def test_every_route_that_names_a_lora_runs_with_it(site: Site) -> None:
    site.vectors("org/m:a")
    expected = site.oracle("a")
    embedded = site.http.post("/v1/embeddings", json={"model": "org/m:a", "input": TEXTS}).json()["data"]
    np.testing.assert_allclose([each["embedding"] for each in embedded], expected, atol=1e-5)
    ranked = site.http.post("/v1/rerank", json={"model": "org/m:a", "query": TEXTS[0], "documents": TEXTS[1:]}).json()
    found = {each["index"]: each["relevance_score"] for each in ranked["results"]}
    np.testing.assert_allclose([found[0], found[1]], expected[1:] @ expected[0], atol=1e-5)


@pytest.mark.parametrize("name", ["org/any", "/etc", "../a"])
def test_what_the_catalogue_does_not_list_is_refused_with_what_it_does(site: Site, name: str) -> None:
    refused = site.ask("org/m", lora=name)
    assert (refused.status_code, refused.headers["x-sie-error-code"]) == (400, "INVALID_INPUT")
    assert "it has: a, b, c, gone" in refused.json()["error"]["message"]


def test_a_lora_that_cannot_be_had_is_a_failed_load_and_the_model_goes_on(site: Site) -> None:
    failed, _ = site.answer("org/m:gone")
    error = failed.json()["error"]
    assert (failed.status_code, error["code"], error["error_class"]) == (502, "MODEL_LOAD_FAILED", "NOT_FOUND")
    assert site.ask("org/m").status_code == 200


def test_all_of_them_share_the_weights_and_cost_what_they_hold(site: Site) -> None:
    site.vectors("org/m:a")
    site.vectors("org/m:b")
    info = site.http.get("/v1/models/org/m").json()
    assert {each["weights"] for each in info["profiles"].values()} == {"org/m"}
    sizes = {name: each["lora"]["memory_bytes"] for name, each in info["profiles"].items() if "lora" in each}
    assert 0 < sizes["a"] == sizes["b"] < info["memory_bytes"]
    assert sizes["gone"] == 0
    metrics = site.http.get("/metrics").text
    assert f'sie_model_memory_bytes{{device="cpu",model="org/m:a"}} {float(sizes["a"])}' in metrics
