"""The forms in which outputs travel."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.arrays import decode_reply
from sie_protocol.headers import JSON, MSGPACK

M = "org/three"
DIMS = {"dense": 20, "sparse": 30522, "multivector": 12}
TEXTS = ("b a b", "one", "one two three four five")


@pytest.fixture
async def worker(tmp_path: Path) -> Any:
    tasks = {"encode": {kind: {"dim": dim} for kind, dim in DIMS.items()}}
    async with served(write_catalog(tmp_path, {M: {"tasks": tasks}})) as each:
        await each.encode(M, "warm")
        yield each


async def encode(worker: Served, *texts: str, **params: Any) -> list[dict[str, Any]]:
    body = msgspec.msgpack.encode({"items": [{"text": text} for text in texts], "params": params})
    reply = await worker.http.post(f"/v1/encode/{M}", content=body, headers={"content-type": "application/msgpack"})
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = decode_reply(reply.content)["items"]
    return items


async def test_one_request_may_want_several_outputs_of_different_length(worker: Served) -> None:
    items = await encode(worker, *TEXTS, output_types=list(DIMS))
    for text, item in zip(TEXTS, items, strict=True):
        words = text.split()
        dense, sparse, multivector = item["dense"], item["sparse"], item["multivector"]
        assert (dense["dims"], dense["dtype"], dense["values"].shape) == (20, "float32", (20,))
        assert (sparse["dims"], sparse["dtype"]) == (30522, "float32")
        assert (sparse["indices"].dtype, sparse["values"].dtype) == (np.int32, np.float32)
        assert (np.diff(sparse["indices"]) > 0).all()
        assert len(sparse["values"]) == len(sparse["indices"]) == len(set(words))
        assert (multivector["token_dims"], multivector["num_tokens"]) == (12, len(words))
        assert (multivector["dtype"], multivector["values"].shape) == ("float32", (len(words), 12))


async def test_a_reader_of_json_gets_the_same_numbers(worker: Served) -> None:
    params = {"output_types": list(DIMS), "output_dtype": "int8"}
    (binary,) = await encode(worker, TEXTS[0], **params)
    (text,) = (await worker.encode(M, TEXTS[0], **params)).json()["items"]
    for kind in DIMS:
        assert set(text[kind]) == set(binary[kind])
        for key, value in text[kind].items():
            found = binary[kind][key]
            assert value == (found.tolist() if isinstance(found, np.ndarray) else found)


async def test_only_the_outputs_that_were_asked_for_travel(worker: Served) -> None:
    assert [set(item) for item in await encode(worker, *TEXTS)] == [{"dense"}] * 3
    assert [set(item) for item in await encode(worker, *TEXTS, output_types=["sparse"])] == [{"sparse"}] * 3


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
async def test_integers_travel_with_the_way_back(worker: Served, dtype: str) -> None:
    exact = await encode(worker, *TEXTS, output_types=list(DIMS))
    for item, whole in zip(
        await encode(worker, *TEXTS, output_types=list(DIMS), output_dtype=dtype), exact, strict=True
    ):
        for kind in ("dense", "multivector"):
            found = item[kind]
            assert (found["dtype"], found["values"].dtype) == (dtype, dtype)
            back = found["values"] * found["scale"] + found.get("offset", 0)
            assert (np.abs(back - whole[kind]["values"]) <= 0.501 * np.asarray(found["scale"])).all()
        assert isinstance(item["dense"]["scale"], float)
        assert item["dense"]["dims"] == 20
        np.testing.assert_array_equal(item["sparse"]["values"], whole["sparse"]["values"])
        assert item["sparse"]["dtype"] == "float32"


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
async def test_packed_bits_keep_the_unpacked_dimension(worker: Served, dtype: str) -> None:
    items = await encode(worker, *TEXTS, output_types=list(DIMS), output_dtype=dtype)
    for item, text in zip(items, TEXTS, strict=True):
        dense, multivector = item["dense"], item["multivector"]
        assert (dense["dims"], dense["dtype"], dense["values"].shape) == (20, dtype, (3,))
        assert (multivector["token_dims"], multivector["values"].shape) == (12, (len(text.split()), 2))
        assert (multivector["dtype"], multivector["num_tokens"]) == (dtype, len(text.split()))


async def test_token_vectors_that_no_memory_could_hold_are_refused_before_they_are_computed(tmp_path: Path) -> None:
    tasks = {"encode": {"multivector": {"dim": 200_000}}}
    async with served(write_catalog(tmp_path, {M: {"tasks": tasks}})) as kit:
        await kit.encode(M, "warm")
        for texts, accept, says in (
            (
                ["word " * 500] * 2,
                MSGPACK,
                "the 1000 tokens of the request have vectors of 762 MiB, the limit is 512 MiB",
            ),
            (["word " * 150], JSON, "have vectors of 572 MiB, the limit is 512 MiB"),  # as it would be written
        ):
            body = {"items": [{"text": text} for text in texts]}
            reply = await kit.http.post(f"/v1/encode/{M}", json=body, headers={"accept": accept})
            assert (reply.status_code, reply.headers["x-sie-error-code"]) == (413, "INPUT_TOO_LONG")
            assert says in reply.text
