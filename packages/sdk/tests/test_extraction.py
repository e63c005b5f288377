from typing import Any

import msgspec
import pytest

import sdk_answers as published
from sdk_server import Reply
from sdk_virtual_time import Run, Scripted, answer, run
from sie_protocol.items import ExtractResult, Item
from sie_sdk import errors, extraction
from sie_sdk.retry import Terms

TERMS = Terms(timeout_s=30, budget_s=900)
HELLO: list[Item] = [{"text": "Hello"}]


def extract(items: list[Item], reply: Reply) -> Run[list[ExtractResult]]:
    return run(extraction.extract(TERMS, "org/m", items, None), iter([Scripted(answer(reply))]))


def test_a_request_says_nothing_that_the_caller_does_not() -> None:
    params = extraction.extract_params(None, None, None, {})
    asked = extraction.extract_request(TERMS, "org/m", HELLO, params)
    assert msgspec.msgpack.decode(asked.body) == {"items": [{"text": "Hello"}]}
    assert extraction.extract_params([], None, None, {}) is not None  # none is not the same as no word about them


def test_labels_that_are_one_string_are_refused() -> None:
    with pytest.raises(TypeError, match=r"a list such as \['person'\]"):
        extraction.extract_params("person", None, None, {})


def test_what_a_server_leaves_out_is_empty_and_unknown_keys_are_ignored() -> None:
    entity = {"text": "a", "label": "b", "score": 1, "later": 5}
    [result] = extract(HELLO, published.extracted({"entities": [entity], "later": []})).result or []
    assert result == {
        "id": "item-0",
        "entities": [{"text": "a", "label": "b", "score": 1.0, "start": None, "end": None, "bbox": None}],
        "relations": [],
        "classifications": [],
        "objects": [],
        "data": {},
    }


def test_an_item_with_an_error_does_not_hide_the_others() -> None:
    wrong = {"id": "item-0", "error": {"code": "INVALID_INPUT", "message": "item 0 has no text"}}
    answered = published.extracted(wrong, {"id": "x", "classifications": [{"label": "a", "score": 0.5}]})
    first, second = extract([{}, {"id": "x", "text": "a"}], answered).result or []
    assert first["error"]["code"] == "INVALID_INPUT"
    assert first["entities"] == []
    assert "error" not in second
    assert second["classifications"] == [{"label": "a", "score": 0.5}]


@pytest.mark.parametrize("found", [[], [{}, {}], [{"id": "other"}]])
def test_results_of_other_items_than_those_sent_are_an_error(found: list[dict[str, Any]]) -> None:
    assert isinstance(extract(HELLO, published.extracted(*found)).error, errors.IncompleteBatchError)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>", {"Content-Type": "text/html"}),
        published.extracted("text"),
        published.extracted({"entities": [{"text": "a"}]}),
        published.scored(("item-0", 1.0)),
    ],
)
def test_an_answer_that_is_none_points_to_the_base_url(reply: Reply) -> None:
    done = extract(HELLO, reply)
    assert type(done.error) is errors.ServerError
    assert "base_url" in str(done.error)
