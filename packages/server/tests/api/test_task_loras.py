"""The catalogue's entry of jina-embeddings-v3 on a small checkpoint: which LoRA of the weights runs with what."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.arrays import Array
from sie_server.settings import Settings
from tiny_families import WIDTH
from tiny_jina_v3 import TASKS, oracle, write_native, write_published, write_tasks

TEXTS = ["the cat sat on a mat", "two dogs", "a long document, and more"]
QUERY, DOCUMENT = "Represent the query for retrieving evidence documents: ", "Represent the document for retrieval: "
PROMPTS = {"retrieval.query": QUERY, "retrieval.passage": DOCUMENT}
NAME = "jinaai/jina-embeddings-v3"


@dataclass(frozen=True)
class Site:
    """A worker, and what is published of its model."""

    served: Served
    native: Path
    loras: dict[str, Path]

    def oracle(self, task: str, texts: list[str] = TEXTS) -> Array:
        """What PEFT gives for texts in the prompt of a task."""
        return oracle(self.native, self.loras[task], [PROMPTS.get(task, "") + text for text in texts])

    async def vectors(self, model: str, **options: Any) -> Array:
        """Dense vectors [texts, dims]."""
        reply = await self.served.encode(model, *TEXTS, options=options)
        assert reply.status_code == 200, reply.text
        return np.array([item["dense"]["values"] for item in reply.json()["items"]])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Path]]:
    root = tmp_path_factory.mktemp("jina")
    native = write_native(root / "native")
    loras = write_tasks(native, root / "loras")
    return native, write_published(native, loras, root / "published"), dict(zip(TASKS, loras, strict=True))


def settings_for(folder: Path, weights: Path, lora: Path, **options: Any) -> Settings:
    """The catalogue's own entry, of small weights, and one more profile with a LoRA on top."""
    entry = msgspec.yaml.decode((Settings().models_dir / "jinaai__jina-embeddings-v3.yaml").read_bytes())
    entry["tasks"]["encode"]["dense"] |= {"dim": WIDTH, "min_dim": 4}
    entry["profiles"]["default"]["adapter_options"] |= options
    entry["profiles"]["own"] = {
        "extends": "default",
        "adapter_options": {"query_template": "{text}", "doc_template": "{text}"},
        "lora": {"weights_path": str(lora)},
    }
    del entry["hf_id"]
    settings = write_catalog(folder, {NAME: {"weights_path": str(weights)}})
    (folder / "models" / "0.yaml").write_text(json.dumps({**entry, "weights_path": str(weights)}))
    return settings


@pytest.fixture
async def site(tmp_path: Path, files: tuple[Path, Path, dict[str, Path]]) -> AsyncIterator[Site]:
    native, published, loras = files
    async with served(settings_for(tmp_path, published, loras["separation"])) as running:
        yield Site(running, native, loras)


async def test_every_profile_runs_with_the_lora_and_prompt_of_its_task(site: Site) -> None:
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        **{task: (f"{NAME}:{task}", {}) for task in TASKS},
        "documents": (NAME, {}),
        "queries": (NAME, {"is_query": True}),
        "by option": (NAME, {"profile": "Text-Matching", "is_query": True}),
        "queries as documents": (f"{NAME}:retrieval.passage", {"is_query": True}),
    }
    meant = {
        **{task: task for task in TASKS},
        "documents": "retrieval.passage",
        "queries": "retrieval.query",
        "by option": "text-matching",
        "queries as documents": "retrieval.passage",
    }
    await site.vectors(NAME)  # loaded, so that all others are here at once and share batches
    found = await asyncio.gather(*(site.vectors(name, **options) for name, options in asked.values()))
    for of, vectors in zip(asked, found, strict=True):
        np.testing.assert_allclose(vectors, site.oracle(meant[of]), atol=1e-5, err_msg=of)


async def test_a_query_is_scored_with_the_lora_of_queries_and_its_documents_with_theirs(site: Site) -> None:
    await site.vectors(NAME)
    asked = {"model": NAME, "query": TEXTS[0], "documents": TEXTS}
    ranked = (await site.served.http.post("/v1/rerank", json=asked)).json()["results"]
    found = {each["index"]: each["relevance_score"] for each in ranked}
    expected = site.oracle("retrieval.passage") @ site.oracle("retrieval.query", TEXTS[:1])[0]
    np.testing.assert_allclose([found[at] for at in range(len(TEXTS))], expected, atol=1e-5)


async def test_v1_embeddings_gives_those_of_documents_and_the_beginning_of_them(site: Site) -> None:
    await site.vectors(NAME)
    asked = {"model": NAME, "input": TEXTS, "dimensions": 8}
    embedded = (await site.served.http.post("/v1/embeddings", json=asked)).json()["data"]
    begun = site.oracle("retrieval.passage")[:, :8]
    expected = begun / np.linalg.norm(begun, axis=1, keepdims=True)
    np.testing.assert_allclose([each["embedding"] for each in embedded], expected, atol=1e-5)


async def test_a_lora_on_top_takes_the_place_of_the_tasks(site: Site) -> None:
    await site.vectors(NAME)
    while (reply := await site.served.encode(f"{NAME}:own", *TEXTS)).status_code == 503:
        assert reply.headers["x-sie-error-code"] == "LORA_LOADING"
        await asyncio.sleep(0)
    found = [item["dense"]["values"] for item in reply.json()["items"]]
    np.testing.assert_allclose(found, site.oracle("separation"), atol=1e-5)


async def test_all_profiles_are_one_set_of_weights(site: Site) -> None:
    await site.vectors(NAME)
    info = (await site.served.http.get(f"/v1/models/{NAME}")).json()
    assert set(info["profiles"]) == {"default", "own", *TASKS}
    assert {each["weights"] for each in info["profiles"].values()} == {NAME}


async def test_a_task_is_the_catalogue_s_to_choose(site: Site) -> None:
    refused = await site.served.encode(NAME, "x", options={"query_task": "separation"})
    assert (refused.status_code, refused.headers["x-sie-error-code"]) == (400, "INVALID_INPUT")
    assert "options query_task cannot be set per request" in refused.json()["error"]["message"]


async def test_weights_without_a_task_of_the_catalogue_are_a_failed_load(
    tmp_path: Path, files: tuple[Path, Path, dict[str, Path]]
) -> None:
    native, published, loras = files
    cases: list[tuple[str, Path, dict[str, str]]] = [
        ("native", native, {}),
        ("published", published, {"doc_task": "summaries"}),
    ]
    for name, weights, options in cases:
        settings = settings_for(tmp_path / name, weights, loras["separation"], **options)
        async with served(settings) as running:
            failed = await running.encode(NAME, "x")
        error = failed.json()["error"]
        assert (failed.status_code, error["code"], error["error_class"]) == (502, "MODEL_LOAD_FAILED", "UNKNOWN")
        assert "the weights have no LoRA for task" in error["message"]


async def test_a_family_that_has_no_tasks_refuses_them(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path, {"org/m": {"options": {"query_task": "any"}}})
    async with served(settings) as running:
        error = (await running.encode("org/m", "x")).json()["error"]
    assert (error["code"], error["error_class"]) == ("MODEL_LOAD_FAILED", "DEPENDENCY")
    assert "the tasks any; models of this adapter are run without any" in error["message"]
