import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sdk_answers as published
from sdk_server import Reply
from sdk_virtual_time import Run, Scripted, answer, run
from sie_protocol.items import EncodeParams, EncodeResult, Item, ModelInfo, ScoreResult
from sie_sdk import calls, errors
from sie_sdk.messages import Request
from sie_sdk.retry import Terms

TERMS = Terms(timeout_s=30, budget_s=900)
QUESTION = Terms(timeout_s=30, budget_s=30, wait_for_capacity=False)
HELLO: list[Item] = [{"text": "Hello"}]


def request(
    model: str = "BAAI/bge-m3",
    items: list[Item] = HELLO,
    params: EncodeParams | None = None,
    gpu: str | None = None,
) -> Request:
    return calls.encode_request(Terms(30, 900, gpu=gpu), model, items, params)


def encode(items: list[Item], reply: Reply) -> Run[list[EncodeResult]]:
    return run(calls.encode(TERMS, "org/m", items, None), iter([Scripted(answer(reply))]))


def results(items: list[Item], reply: Reply) -> list[EncodeResult]:
    done = encode(items, reply)
    assert done.result is not None, done.error
    return done.result


def test_an_encode_request_is_what_published_servers_read() -> None:
    params = calls.encode_params(["dense"], None, None, {"is_query": True})
    asked = request(params=params, gpu="tenant-abc/l4")
    assert (asked.method, asked.path) == ("POST", "/v1/encode/BAAI/bge-m3")
    assert msgspec.msgpack.decode(asked.body) == {
        "items": [{"text": "Hello"}],
        "params": {"output_types": ["dense"], "options": {"is_query": True}},
    }
    assert dict(asked.headers) == {
        "Content-Type": "application/msgpack",
        "Accept": "application/msgpack",
        "X-SIE-Pool": "tenant-abc",
        "X-SIE-MACHINE-PROFILE": "l4",
    }


def test_what_the_caller_does_not_say_is_not_sent() -> None:
    asked = request(params=calls.encode_params(None, None, None, {}))
    assert msgspec.msgpack.decode(asked.body) == {"items": [{"text": "Hello"}]}
    assert {"X-SIE-Pool", "X-SIE-MACHINE-PROFILE"}.isdisjoint(dict(asked.headers))


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("l4", {"X-SIE-MACHINE-PROFILE": "l4"}),
        ("pool/", {"X-SIE-Pool": "pool"}),
    ],
)
def test_a_target_names_a_profile_a_pool_or_both(gpu: str, expected: dict[str, str]) -> None:
    assert {k: v for k, v in request(gpu=gpu).headers if k.startswith("X-SIE")} == expected


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("org/a b?c#d%e", "/v1/encode/org/a%20b%3Fc%23d%25e"),
        ("default:/org/m", "/v1/encode/default%3A/org/m"),
        ("org/modèle", "/v1/encode/org/mod%C3%A8le"),
    ],
)
def test_a_model_id_is_percent_encoded_but_for_its_slashes(model: str, path: str) -> None:
    assert request(model).path == path


@pytest.mark.parametrize("model", ["", ":/m", "default:/", "../health", "org/./m"])
def test_what_is_no_model_id_is_refused_before_anything_is_sent(model: str) -> None:
    with pytest.raises(ValueError, match="model"):
        request(model)


@pytest.mark.parametrize("gpu", ["l4\r\nX-Evil: 1", "größe", "pool/a/b", "pool//l4"])
def test_a_target_cannot_break_out_of_its_header_nor_have_three_parts(gpu: str) -> None:
    with pytest.raises(ValueError, match="machine profile"):
        request(gpu=gpu)


def test_options_of_a_call_win_over_those_of_the_client() -> None:
    merged = calls.merged_options({"profile": "a", "x": 1}, {"profile": "b"}, is_query=False)
    assert merged == {"profile": "b", "x": 1, "is_query": False}
    assert calls.merged_options({}, None, is_query=None) == {}


def test_output_types_as_a_string_is_an_error_and_not_five_letters() -> None:
    with pytest.raises(TypeError, match=r"\['dense'\]"):
        calls.encode_params("dense", None, None, {})


@pytest.mark.parametrize("items", [["Hello"], "Hello", [{"text": "a"}, None]])
def test_what_is_no_item_is_shown(items: Any) -> None:
    with pytest.raises(TypeError, match="an item is a dict"):
        calls.as_list(items)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("Hello", "{'text': 'Hello'}, not the str 'Hello'"),
        ([{"text": "a"}, "b"], r"items[1]: an item is a dict such as {'text': 'b'}"),
        (None, "not None"),
        (7, "not int: 7"),
        ({"txt": "a"}, "unknown key 'txt'; did you mean text?"),
        ([{"text": "a"}, {"text": "b", "image": b"c"}], "items[1] has an unknown key 'image'; did you mean images?"),
    ],
)
def test_a_wrong_item_is_told_with_its_place_and_a_way_to_say_it(items: Any, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        calls.as_list(items)


def test_what_only_others_read_in_an_item_is_sent() -> None:
    items: list[Any] = [{"id": "a", "text": "b", "metadata": {}}, *({key: 1} for key in ("audio", "source"))]
    assert calls.as_list(items) == items


def test_arguments_of_another_kind_are_named() -> None:
    wrong: Any = ["l4"]
    with pytest.raises(TypeError, match=r"gpu is \['l4'\]"):
        request(gpu=wrong)
    wrong = None
    with pytest.raises(TypeError, match="model is None"):
        request(wrong)
    wrong = "fast"
    with pytest.raises(TypeError, match="options is 'fast'"):
        calls.merged_options({}, wrong, is_query=None)


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(TypeError, match="object"):
        request(items=[{"text": "a", "metadata": {"x": object()}}])


def test_arrays_and_image_bytes_travel_as_they_are() -> None:
    items: list[Item] = [
        {"images": [{"data": b"\xff\xd8", "format": "jpeg"}], "metadata": {"v": np.arange(3, dtype=np.int32)}}
    ]
    sent = msgspec.msgpack.decode(request(items=items).body)["items"][0]
    assert sent["images"] == [{"data": b"\xff\xd8", "format": "jpeg"}]
    assert sent["metadata"]["v"] == published.array_map(np.arange(3, dtype=np.int32))


def test_results_hold_arrays_ids_and_what_the_request_took() -> None:
    sparse = {
        "dims": 9,
        "dtype": "float32",
        "indices": published.array_map(np.array([2, 7], np.int32)),
        "values": published.array_map(np.array([0.5, 0.25], np.float32)),
    }
    multivector = {
        "token_dims": 2,
        "num_tokens": 3,
        "dtype": "float16",
        "values": published.array_map(np.ones((3, 2), np.float16)),
    }
    item = published.dense_item(0.6, 0.8, id="a", sparse=sparse, multivector=multivector, later=1)
    reply = published.encoded(
        [item, published.dense_item(1.0, 0.0)], timing={"total_ms": 4.5}, usage={"truncated_items": 1}
    )
    first, second = results([{"id": "a", "text": "x"}, {"text": "y"}], reply)
    assert first["id"] == "a"
    assert "id" not in second
    np.testing.assert_array_equal(first["dense"], np.array([0.6, 0.8], np.float32))
    assert first["sparse"]["indices"].tolist() == [2, 7]
    assert first["sparse"]["values"].tolist() == [0.5, 0.25]
    assert first["multivector"].shape == (3, 2)
    assert first["multivector"].dtype == np.float16
    assert first["timing"] == second["timing"] == {"total_ms": 4.5}
    assert first["timing"] is not second["timing"]
    assert first["usage"] == second["usage"] == {"truncated_items": 1}
    assert not first["dense"].flags.writeable


def test_what_was_quantised_comes_with_the_way_back() -> None:
    dense = {"values": published.array_map(np.array([127, -64], np.int8)), "scale": 0.5}
    steps = published.array_map(np.array([[0.5], [0.25]], np.float32))
    multivector = {
        "values": published.array_map(np.array([[0, 255], [4, 0]], np.uint8)),
        "scale": steps,
        "offset": published.array_map(np.array([[-1.0], [2.0]], np.float32)),
    }
    (result,) = results(HELLO, published.encoded([{"dense": dense, "multivector": multivector}]))
    way = result["quantization"]
    assert set(way) == {"dense", "multivector"}
    assert (result["dense"] * way["dense"]["scale"]).tolist() == [63.5, -32]
    back = result["multivector"] * way["multivector"]["scale"] + way["multivector"]["offset"]
    assert back.tolist() == [[-1, 126.5], [3, 2]]
    assert "quantization" not in results(HELLO, published.encoded([published.dense_item(1.0)]))[0]


def test_a_scale_that_is_no_number_is_a_fault_of_the_server() -> None:
    dense = {"values": published.array_map(np.array([1], np.int8)), "scale": "0.5"}
    with pytest.raises(errors.ServerError, match="'scale' of 'dense'"):
        raise encode(HELLO, published.encoded([{"dense": dense}])).error or AssertionError


@given(st.lists(hnp.arrays(np.float32, hnp.array_shapes(max_dims=1, max_side=16)), min_size=1, max_size=5))
def test_each_item_gets_the_vector_in_its_place(vectors: list[Any]) -> None:
    reply = published.encoded([{"dense": {"values": published.array_map(vector)}} for vector in vectors])
    items: list[Item] = [{"id": str(n)} for n in range(len(vectors))]
    for n, (result, vector) in enumerate(zip(results(items, reply), vectors, strict=True)):
        assert result["id"] == str(n)
        np.testing.assert_array_equal(result["dense"], vector)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_results_than_items_is_an_error(count: int) -> None:
    done = encode([{"text": "a"}, {"text": "b"}], published.encoded([published.dense_item(1.0)] * count))
    assert isinstance(done.error, errors.IncompleteBatchError)
    assert f"{count} results for 2 items" in str(done.error)


def test_results_in_another_order_than_the_items_are_an_error() -> None:
    swapped = published.encoded([published.dense_item(1.0, id="b"), published.dense_item(1.0, id="a")])
    done = encode([{"id": "a"}, {"id": "b"}], swapped)
    assert isinstance(done.error, errors.IncompleteBatchError)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>", {"Content-Type": "text/html"}),
        published.said(200, {"items": [{}]}),
        Reply(200, msgspec.msgpack.encode({"items": 3}), published.MSGPACK),
        Reply(200, msgspec.msgpack.encode([1]), published.MSGPACK),
        published.encoded([{"dense": {"values": [0.1, 0.2]}}]),
        published.encoded([{"dense": {"values": {b"nd": True, b"type": "|O", b"shape": [1], b"data": b"x"}}}]),
        published.encoded([{"dense": {"values": {b"nd": True, b"type": "<f4", b"shape": [9], b"data": b"x"}}}]),
    ],
)
def test_a_success_that_is_none_points_to_the_base_url(reply: Reply) -> None:
    done = encode(HELLO, reply)
    assert type(done.error) is errors.ServerError
    assert "base_url" in str(done.error)


def score(items: list[Item], reply: Reply) -> Run[ScoreResult]:
    plan = calls.score(TERMS, "org/m", {"text": "q"}, items, None, {})
    return run(plan, iter([Scripted(answer(reply))]))


def test_a_score_request_says_nothing_that_the_caller_does_not() -> None:
    asked = calls.score_request(TERMS, "org/m", {"text": "q"}, HELLO, None, {})
    assert msgspec.msgpack.decode(asked.body) == {"query": {"text": "q"}, "items": [{"text": "Hello"}]}


@pytest.mark.parametrize("query", ["text", None, [{"text": "a"}]])
def test_a_query_that_is_no_item_is_shown(query: Any) -> None:
    with pytest.raises(TypeError, match="the query: an item is a dict"):
        calls.score(TERMS, "org/m", query, HELLO, None, {})


@pytest.mark.parametrize(
    "reply",
    [
        published.scored(("item-0", 1.0)),
        published.scored(("item-0", 1.0), ("item-1", 0.5), ("item-2", 0.1)),
        published.scored(("item-0", 1.0), ("x", 0.5)),
        published.scored(("item-0", 1.0), ("item-0", 0.5)),
    ],
)
def test_scores_of_other_items_than_those_sent_are_an_error(reply: Reply) -> None:
    assert isinstance(score([{"text": "a"}, {"text": "b"}], reply).error, errors.IncompleteBatchError)


@pytest.mark.parametrize(
    "reply",
    [
        published.encoded([]),
        Reply(200, b"<html>", {"Content-Type": "text/html"}),
        published.scored(("item-0", "high")),  # type: ignore[arg-type]  # what a broken server sends
    ],
)
def test_a_score_answer_that_is_none_points_to_the_base_url(reply: Reply) -> None:
    done = score(HELLO, reply)
    assert type(done.error) is errors.ServerError
    assert "base_url" in str(done.error)


def test_models_are_listed_and_told() -> None:
    worker_shape = {
        "name": "org/m",
        "inputs": ["text"],
        "outputs": ["dense"],
        "dims": {"dense": 384},
        "loaded": True,
        "max_sequence_length": None,
        "profiles": {"default": {"is_default": True}},
    }
    router_shape = {
        "name": "org/n",
        "bundles": ["default"],
        "worker_count": 1,
        "workers": ["http://w"],
        "loaded": False,
    }
    listed: Run[list[ModelInfo]] = run(
        calls.list_models(QUESTION),
        iter([Scripted(answer(published.said(200, {"models": [worker_shape, router_shape]})))]),
    )
    assert listed.result == [worker_shape, router_shape]
    told: Run[ModelInfo] = run(
        calls.get_model(QUESTION, "org/m"), iter([Scripted(answer(published.said(200, worker_shape)))])
    )
    assert told.result is not None
    assert told.result["dims"]["dense"] == 384


def test_a_model_that_is_not_there_is_a_request_error() -> None:
    done = run(calls.get_model(QUESTION, "m"), iter([Scripted(answer(published.UNKNOWN_MODEL_0_1))]))
    assert isinstance(done.error, errors.RequestError)
    assert done.error.code == "MODEL_NOT_FOUND"
    assert "list_models()" in str(done.error)


def test_half_a_character_is_refused_with_its_place_and_a_way_out() -> None:
    texts = ["fine \U0001f600", "cut \ud83d"]
    with pytest.raises(ValueError, match=r"text of items\[1\] holds half a character \(U\+D83D at 4\)"):
        calls.as_list([{"text": text} for text in texts])
    mended = [text.encode("utf-8", "replace").decode() for text in texts]
    assert calls.as_list([{"text": text} for text in mended])[1]["text"] == "cut ?"
