"""Pages and queries over HTTP: multivectors of images, scores by the best matches, several pages of one document."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from served_worker import BOUND_S, Served, served, write_catalog
from sie_protocol.arrays import Array, decode_reply
from sie_protocol.headers import MSGPACK
from sie_protocol.profiles import Muvera
from sie_server.core.muvera import encoder_of
from tiny_colengine import EngineOracle, write_colsmol, write_trained
from tiny_colvision import DIMS, Oracle, write_colqwen2
from tiny_cross_encoder import write_reranker
from tiny_loras import merged
from tiny_vision import WIDTH, oracle_images, oracle_texts, picture, write_clip
from wire_answers import error_of, patiently

PAGES, TRAINED, CLIP, RERANKER = "org/pages", "org/trained", "org/clip", "org/reranker"
MUVERA = {"repetitions": 4, "simhash_bits": 3, "projection_dims": 8, "seed": 1}
IMAGES = [picture(40, 40, 1), picture(60, 35, 2, "JPEG"), picture(30, 90, 3)]
QUERY = "what is the revenue?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = tmp_path_factory.mktemp("tiny")
    write_colqwen2(tiny / "pages")
    merged(write_colsmol(tiny / "base"), write_trained(tiny / "base", tiny / "lora"), tiny / "merged")
    write_clip(tiny / "clip")
    write_reranker(tiny / "reranker")
    return tiny


def catalog(folder: Path) -> dict[str, dict[str, Any]]:
    sees = {"text": True, "image": True}
    return {
        PAGES: {
            "profiles": {
                "default": {"adapter": "colvision"},
                "one": {"extends": "default", "adapter_options": {"muvera": MUVERA}},
            },
            "weights_path": str(folder / "pages"),
            "inputs": sees,
            "tasks": {"encode": {"multivector": {"dim": DIMS}}},
        },
        TRAINED: {
            "profiles": {
                "default": {"adapter": "colvision", "lora": {"weights_path": str(folder / "lora")}},
                "one": {"extends": "default", "adapter_options": {"muvera": MUVERA}},
            },
            "weights_path": str(folder / "base"),
            "inputs": sees,
            "tasks": {"encode": {"multivector": {"dim": DIMS}}},
        },
        CLIP: {
            "adapter": "vision",
            "weights_path": str(folder / "clip"),
            "inputs": sees,
            "tasks": {"encode": {"dense": {"dim": WIDTH}}},
        },
        RERANKER: {"adapter": "cross_encoder", "weights_path": str(folder / "reranker"), "tasks": {"score": {}}},
    }


@pytest.fixture
async def worker(tmp_path: Path, folder: Path) -> Any:
    async with served(write_catalog(tmp_path, catalog(folder))) as each:
        yield each


async def post(worker: Served, task: str, model: str, body: dict[str, Any]) -> httpx.Response:
    head = {"content-type": MSGPACK, "accept": MSGPACK}
    async with asyncio.timeout(BOUND_S):
        return await patiently(
            lambda: worker.http.post(f"/v1/{task}/{model}", content=msgspec.msgpack.encode(body), headers=head)
        )


def item(*images: bytes) -> dict[str, Any]:
    return {"images": [{"data": each} for each in images]}


async def scores(worker: Served, model: str, query: dict[str, Any], items: list[dict[str, Any]]) -> list[float]:
    reply = await post(worker, "score", model, {"query": query, "items": items})
    assert reply.status_code == 200, reply.text
    found = {each["item_id"]: each["score"] for each in msgspec.msgpack.decode(reply.content)["scores"]}
    return [found[f"item-{at}"] for at in range(len(items))]


async def test_an_item_of_several_pages_has_the_vectors_of_all_of_them(worker: Served, folder: Path) -> None:
    items = [item(*IMAGES[:2]), {"text": QUERY}, item(IMAGES[2])]
    reply = await post(worker, "encode", PAGES, {"items": items, "params": {"output_types": ["multivector"]}})
    assert reply.status_code == 200, reply.text
    answer = decode_reply(reply.content)
    found: list[Array] = [each["multivector"]["values"] for each in answer["items"]]
    oracle = Oracle(folder / "pages")
    first, second, third = oracle.images(IMAGES)
    (query,) = oracle.texts([QUERY])
    for own, other in zip(found, [np.concatenate([first, second]), query, third], strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)
    assert answer["usage"]["input_tokens"] == sum(map(len, found))


async def test_pages_of_an_item_become_one_vector_where_the_profile_says_so(worker: Served, folder: Path) -> None:
    reply = await post(worker, "encode", f"{PAGES}:one", {"items": [item(*IMAGES[:2]), item(IMAGES[2])]})
    assert reply.status_code == 200, reply.text
    first, second, third = Oracle(folder / "pages").images(IMAGES)
    encoder = encoder_of(Muvera(**MUVERA), DIMS)
    for own, tokens in zip(decode_reply(reply.content)["items"], (np.concatenate([first, second]), third), strict=True):
        np.testing.assert_allclose(own["dense"]["values"], encoder.encode(tokens, is_query=False), atol=1e-4)


async def test_a_model_that_is_a_lora_on_a_base_is_never_asked_without_it(worker: Served, folder: Path) -> None:
    oracle = EngineOracle(folder / "merged")
    pages, (query,) = oracle.images(IMAGES), oracle.texts([QUERY])
    reply = await post(worker, "encode", TRAINED, {"items": [{"text": QUERY}, *map(item, IMAGES)]})
    assert reply.status_code == 200, reply.text
    found = [each["multivector"]["values"] for each in decode_reply(reply.content)["items"]]
    for own, other in zip(found, [query, *pages], strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)
    expected = [float((query @ page.T).max(axis=1).sum()) for page in pages]
    np.testing.assert_allclose(
        await scores(worker, TRAINED, {"text": QUERY}, [*map(item, IMAGES)]), expected, atol=1e-4
    )
    reply = await post(worker, "encode", f"{TRAINED}:one", {"items": [item(IMAGES[0])]})
    (one,) = decode_reply(reply.content)["items"]
    encoder = encoder_of(Muvera(**MUVERA), DIMS)
    np.testing.assert_allclose(one["dense"]["values"], encoder.encode(pages[0], is_query=False), atol=1e-4)


async def test_pages_are_scored_by_the_best_match_of_each_token(worker: Served, folder: Path) -> None:
    oracle = Oracle(folder / "pages")
    pages, texts = oracle.images(IMAGES), oracle.texts([QUERY, "a text among the pages"])
    documents = [*pages, np.concatenate(pages[:2]), texts[1]]
    items = [*map(item, IMAGES), item(*IMAGES[:2]), {"text": "a text among the pages"}]
    expected = oracle.score([texts[0], pages[0]], documents)
    np.testing.assert_allclose(await scores(worker, PAGES, {"text": QUERY}, items), expected[0], atol=1e-4)
    np.testing.assert_allclose(await scores(worker, PAGES, item(IMAGES[0]), items), expected[1], atol=1e-4)


async def test_pages_are_scored_alike_however_many_vectors_may_exist_at_a_time(tmp_path: Path, folder: Path) -> None:
    items = [item(IMAGES[0]), item(*IMAGES), {"text": "between"}, item(*IMAGES[1:])]
    query: Any = {"text": QUERY}
    found = []
    async with served(write_catalog(tmp_path, catalog(folder))) as whole:
        expected = await scores(whole, PAGES, query, items)
        engine = whole.worker.engine
        for kib in (1, 4, 8):
            engine.limits = replace(engine.limits, score_vector_bytes=kib * 1024)
            found.append(await scores(whole, PAGES, query, items))
    for each in found:
        np.testing.assert_allclose(each, expected, atol=1e-5)


async def test_dense_models_score_images_too(worker: Served, folder: Path) -> None:
    images, (text,) = oracle_images(folder / "clip", IMAGES), oracle_texts(folder / "clip", ["a red car"])
    mean = images.mean(0)
    items = [*map(item, IMAGES), item(*IMAGES)]
    expected = [*(images @ text), mean @ text / np.linalg.norm(mean)]
    np.testing.assert_allclose(await scores(worker, CLIP, {"text": "a red car"}, items), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "query", "items", "says"),
    [
        (PAGES, item(*IMAGES[:2]), [{"text": "a"}], "the query has 2 images; send one"),
        (PAGES, {"text": "a"}, [item(b"no image")], "item 0: an image cannot be read"),
        (PAGES, item(b"no image"), [item(IMAGES[0])], "the query: an image cannot be read"),
        (PAGES, {"text": "a"}, [{"text": "b"}, item(picture(4000, 4))], "too long and narrow"),
        (PAGES, {"id": "q"}, [{"text": "b"}], "the query has no text or images"),
        (RERANKER, {"text": "a"}, [item(IMAGES[0])], "item 0 has images"),
    ],
)
async def test_a_score_that_cannot_be_had_is_one_clear_refusal(
    worker: Served, model: str, query: dict[str, Any], items: list[dict[str, Any]], says: str
) -> None:
    error = error_of(await post(worker, "score", model, {"query": query, "items": items}))
    assert error["code"] == "INVALID_INPUT"
    assert says in error["message"]
