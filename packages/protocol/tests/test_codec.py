import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.codec import MAX_BODY_BYTES, decode_body, encode_body, field_of, is_msgpack, wants_msgpack
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams, EncodeRequest, Item

TEXTS = st.text(max_size=20)
ITEMS = st.fixed_dictionaries({"text": TEXTS}, optional={"id": TEXTS})
PARAMS = st.builds(
    EncodeParams,
    output_types=st.none() | st.lists(st.sampled_from(["dense", "sparse"])),
    instruction=st.none() | TEXTS,
    options=st.none() | st.dictionaries(TEXTS, st.booleans() | st.integers(-9, 9) | TEXTS),
)


@given(st.lists(ITEMS), st.none() | PARAMS, st.sampled_from(["application/msgpack", "application/json"]))
def test_a_request_reads_the_same_in_both_forms(items: list[Item], params: EncodeParams | None, media: str) -> None:
    request = EncodeRequest(items=items, params=params)
    sent_as, body = encode_body(request, media)
    assert sent_as == media
    assert decode_body(body, sent_as, EncodeRequest) == request


def test_the_request_of_a_published_client_reads_as_written() -> None:
    body = msgspec.msgpack.encode(
        {"items": [{"text": "Hello"}], "params": {"output_types": ["dense"], "options": {"is_query": True}}}
    )
    request = decode_body(body, "application/msgpack", EncodeRequest)
    assert request.items == [{"text": "Hello"}]
    assert request.params == EncodeParams(output_types=["dense"], options={"is_query": True})


def test_keys_that_nobody_knows_are_ignored() -> None:
    request = decode_body(b'{"items":[{"text":"a","colour":"red"}],"extra":1}', None, EncodeRequest)
    assert request.items == [{"text": "a"}]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "the body is empty"),
        (b"{", "was it cut short?"),
        (b"[]", "it is a list; expected an object"),
        (b'{"items":5}', "'items' is a whole number; expected a list"),
        (b'{"items":["text"]}', "'items[0]' is a string; expected an object"),
        (b'{"items":[{"text":5}]}', "'items[0].text' is a whole number; expected a string or null"),
        (b'{"items":[{"text":"\xff"}]}', "JSON"),
        (b'{"items":[],"params":{"options":[]}}', "'params.options' is a list"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_a_malformed_body_is_refused_with_the_place_of_the_fault(body: bytes, complaint: str) -> None:
    with pytest.raises(Problem) as refusal:
        decode_body(body, "application/json", EncodeRequest)
    assert refusal.value.code is ErrorCode.INVALID_INPUT
    assert complaint in refusal.value.message
    assert refusal.value.details.get("item") == (0 if "items[0]" in complaint else None)


@given(st.binary(max_size=200), st.sampled_from(["application/msgpack", "application/json"]))
def test_no_body_whatever_raises_anything_but_a_problem(body: bytes, media: str) -> None:
    try:
        decode_body(body, media, EncodeRequest)
    except Problem as refusal:
        assert refusal.status == 400  # noqa: PT017 - most bodies are refused, a few happen to be requests


def test_a_body_over_the_limit_is_413() -> None:
    with pytest.raises(Problem, match=str(MAX_BODY_BYTES)) as refusal:
        decode_body(bytes(MAX_BODY_BYTES + 1), None, EncodeRequest)
    assert refusal.value.status == 413


@pytest.mark.parametrize(
    ("content_type", "answer"),
    [
        (None, False),
        ("", False),
        ("text/plain", False),
        ("application/json", False),
        ("application/msgpack", True),
        ("Application/X-MsgPack; v=1", True),
    ],
)
def test_a_body_is_json_unless_it_says_msgpack(content_type: str | None, answer: bool) -> None:
    assert is_msgpack(content_type) is answer


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        (None, True),
        ("*/*", True),
        ("text/html", True),
        ("application/json", False),
        ("application/json;q=0.9, application/x-msgpack", True),
    ],
)
def test_an_answer_is_msgpack_unless_only_json_is_asked_for(accept: str | None, answer: bool) -> None:
    assert wants_msgpack(accept) is answer


class Reserved(msgspec.Struct):
    gpus: dict[str, int]
    bundle: str | None = None
    names: list[str] = []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"gpus": {"l4": "2"}}', "something in 'gpus' is a string; expected a whole number"),
        (b'{"gpus": {}, "bundle": 7}', "'bundle' is a whole number; expected a string or null"),
        (b'{"gpus": {}, "names": [null]}', "'names[0]' is null; expected a string"),
        (b'{"gpus": {', "it ends in the middle; was it cut short?"),
        (b"{}", "Object missing required field `gpus`"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_plain_words(body: bytes, said: str) -> None:
    with pytest.raises(Problem) as refusal:
        decode_body(body, "application/json", Reserved)
    assert refusal.value.message == f"the body is not a valid JSON request: {said}"
    named = next((name for name in ("gpus", "bundle", "names") if name in said), None)
    assert field_of(refusal.value) == named


class Documents(msgspec.Struct):
    documents: list[Reserved]


def test_the_field_is_the_one_at_the_top_of_the_body_also_when_something_inside_it_is_missing() -> None:
    with pytest.raises(Problem) as refusal:
        decode_body(b'{"documents": [{}]}', "application/json", Documents)
    assert field_of(refusal.value) == "documents"


def test_nothing_is_called_null_in_both_forms() -> None:
    with pytest.raises(Problem, match="it is null; expected an object"):
        decode_body(msgspec.msgpack.encode(None), "application/msgpack", Reserved)
