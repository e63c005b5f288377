"""Profiles whose dense vectors are fixed-dimensional encodings of token vectors, over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.arrays import Array
from sie_protocol.headers import JSON
from sie_protocol.profiles import Muvera
from sie_server.core.muvera import encoder_of
from tiny_heads import TEXTS, write_colbert
from wire_answers import error_of, patiently

M, FIXED, SHORT = "org/colbert", "org/colbert:muvera", "org/colbert:short"
DIMS = 24
OWN = {"repetitions": 5, "simhash_bits": 3, "projection_dims": 4, "seed": 42}
MUVERA = Muvera(**OWN)
PROFILES: dict[str, Any] = {
    "default": {"adapter": "colbert", "adapter_options": {"query_length": 12}},
    "muvera": {"extends": "default", "adapter_options": {"muvera": OWN}},
    "short": {"extends": "default", "adapter_options": {"muvera": {**OWN, "final_dims": 75}}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colbert(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
async def worker(tmp_path: Path, folder: Path) -> AsyncIterator[Served]:
    entry = {
        "weights_path": str(folder),
        "tasks": {"encode": {"multivector": {"dim": DIMS}}},
        "max_sequence_length": 300,
        "profiles": PROFILES,
    }
    three = {
        "tasks": {"encode": {kind: {"dim": 8} for kind in ("dense", "sparse", "multivector")}},
        "profiles": {
            "default": {"adapter": "hash"},
            "muvera": {"extends": "default", "adapter_options": {"muvera": OWN}},
        },
    }
    async with served(write_catalog(tmp_path / "catalog", {M: entry, "org/three": three})) as each:
        yield each


async def encode(worker: Served, model: str, *texts: str, **params: Any) -> list[dict[str, Any]]:
    reply = await worker.encode(model, *texts, **params)
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    return items


async def tokens(worker: Served, *texts: str, model: str = M, is_query: bool = False) -> list[Array]:
    params = {"output_types": ["multivector"], "options": {"is_query": is_query}}
    return [
        np.array(item["multivector"]["values"], np.float32) for item in await encode(worker, model, *texts, **params)
    ]


def encoded(vectors: list[Array], own: Muvera, *, is_query: bool) -> Array:
    encoder = encoder_of(own, vectors[0].shape[1])
    return np.stack([encoder.encode(each, is_query=is_query) for each in vectors])


@pytest.mark.parametrize("is_query", [True, False])
async def test_the_dense_vector_of_such_a_profile_is_the_encoding_of_the_token_vectors(
    worker: Served, is_query: bool
) -> None:
    vectors = await tokens(worker, *TEXTS, is_query=is_query)
    for name, own in ((FIXED, MUVERA), (SHORT, Muvera(**OWN, final_dims=75))):
        items = await encode(worker, name, *TEXTS, options={"is_query": is_query})
        assert [set(item) for item in items] == [{"dense"}] * len(TEXTS)
        assert {item["dense"]["dims"] for item in items} == {own.dims}
        found = np.array([item["dense"]["values"] for item in items])
        np.testing.assert_allclose(found, encoded(vectors, own, is_query=is_query), atol=1e-5)


async def test_all_profiles_run_on_one_set_of_weights(worker: Served) -> None:
    for name in (M, FIXED, SHORT):
        await encode(worker, name, "cat")
    (status,) = worker.worker.engine.statuses()
    assert (status.name, set(status.aliases)) == (M, {FIXED, SHORT})
    infos = {name: (await worker.http.get(f"/v1/models/{name}")).json() for name in (M, FIXED)}
    assert infos[M]["dims"] == {"multivector": DIMS}
    assert infos[FIXED]["dims"] == {"dense": MUVERA.dims, "multivector": DIMS}
    assert infos[FIXED]["outputs"] == ["dense", "multivector"]
    assert infos[FIXED]["profiles"]["muvera"]["weights"] == M


async def test_token_vectors_and_their_encoding_come_from_one_pass(worker: Served) -> None:
    (item,) = await encode(worker, FIXED, TEXTS[0], output_types=["multivector", "dense"])
    vectors = np.array(item["multivector"]["values"], np.float32)
    np.testing.assert_allclose(item["dense"]["values"], encoded([vectors], MUVERA, is_query=False)[0], atol=1e-6)
    (three,) = await encode(worker, "org/three:muvera", "one two three", output_types=["sparse", "dense"])
    vectors = (await tokens(worker, "one two three", model="org/three"))[0]
    np.testing.assert_allclose(three["dense"]["values"], encoded([vectors], MUVERA, is_query=False)[0], atol=1e-6)
    assert len(three["sparse"]["values"]) == 3


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "binary", "ubinary"])
async def test_every_dtype_is_labelled_as_what_it_is(worker: Served, dtype: str) -> None:
    (whole,) = await encode(worker, FIXED, TEXTS[0])
    (found,) = await encode(worker, FIXED, TEXTS[0], output_dtype=dtype)
    exact, dense = np.array(whole["dense"]["values"]), found["dense"]
    assert (dense["dtype"], dense["dims"]) == (dtype, MUVERA.dims)
    values = np.array(dense["values"])
    if "binary" in dtype:
        np.testing.assert_array_equal(np.unpackbits(values.astype(np.uint8))[: MUVERA.dims], exact > 0)
    else:
        back = values * dense.get("scale", 1) + dense.get("offset", 0)
        np.testing.assert_allclose(back, exact, atol=dense.get("scale", 1e-2))


async def score(worker: Served, model: str, **more: Any) -> Any:
    body = {"query": {"text": "two dogs"}, "items": [{"text": text} for text in TEXTS], **more}
    return await patiently(lambda: worker.http.post(f"/v1/score/{model}", json=body, headers={"accept": JSON}))


def by_place(answer: Any) -> list[float]:
    found = {entry["item_id"]: entry["score"] for entry in answer["scores"]}
    return [found[f"item-{at}"] for at in range(len(found))]


async def test_such_a_profile_scores_by_the_dot_product_of_both_sides(worker: Served) -> None:
    found = by_place((await score(worker, FIXED)).json())
    (asked,) = await encode(worker, FIXED, "two dogs", options={"is_query": True})
    documents = await encode(worker, FIXED, *TEXTS)
    expected = [np.dot(asked["dense"]["values"], each["dense"]["values"]) for each in documents]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    exact = by_place((await score(worker, M)).json())
    assert by_place((await score(worker, FIXED, options={"score_mode": "multivector"})).json()) == pytest.approx(exact)


async def test_what_such_a_profile_does_not_do_is_refused(worker: Served) -> None:
    hybrid = error_of(await score(worker, "org/three:muvera", options={"score_mode": "hybrid"}))
    assert "has: dense, sparse, multivector" in hybrid["message"]
    asked = error_of(await worker.encode(M, "cat", options={"muvera": OWN}))
    assert "options muvera cannot be set per request" in asked["message"]
    plain = error_of(await worker.encode(M, "cat", output_types=["dense"]))
    assert "has no output dense" in plain["message"]


async def test_openais_clients_get_the_encodings_of_documents(worker: Served) -> None:
    await encode(worker, FIXED, "warm")
    reply = await worker.http.post("/v1/embeddings", json={"model": FIXED, "input": TEXTS[0]})
    (own,) = await encode(worker, FIXED, TEXTS[0])
    assert reply.json()["data"][0]["embedding"] == pytest.approx(own["dense"]["values"], abs=1e-6)


async def test_encodings_that_no_memory_could_hold_are_refused_before_they_are_computed(tmp_path: Path) -> None:
    large = {"repetitions": 1000, "simhash_bits": 8, "projection_dims": 1, "seed": 1}
    entry = {
        "tasks": {"encode": {"multivector": {"dim": 8}}},
        "profiles": {"default": {"adapter": "hash", "adapter_options": {"muvera": large}}},
    }
    async with served(write_catalog(tmp_path, {M: entry})) as kit:
        reply = await kit.encode(M, *["word"] * 600)
        assert (reply.status_code, reply.headers["x-sie-error-code"]) == (413, "INPUT_TOO_LONG")


async def test_a_profile_that_declares_what_cannot_be_stops_the_start_by_name(tmp_path: Path) -> None:
    profiles = {"default": {"adapter": "hash"}, "x": {"extends": "default", "adapter_options": {"muvera": OWN}}}
    with pytest.raises(ValueError, match=r"profile 'x' of model 'org/colbert': muvera: .* no output multivector"):
        async with served(write_catalog(tmp_path, {M: {"profiles": profiles}})):
            pass
