from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.catalog import EmptyTask, EncodeTask, ExtractTask, ModelConfig, ProfileConfig, Tasks, VectorTask
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams, ExtractParams
from sie_server.core.extraction import resolve_extract
from sie_server.core.options import (
    REQUEST_OPTIONS,
    RUNTIME_OPTIONS,
    Prompt,
    load_options,
    no_such_task,
    resolve_encode,
)
from sie_server.core.profiles import check_profile
from sie_server.core.scoring import resolve_score

DENSE = Tasks(encode=EncodeTask(dense=VectorTask(8)))


def model(*, tasks: Tasks = DENSE, **options: Any) -> ModelConfig:
    others = {"short": ProfileConfig("dense", adapter_options={**options, "doc_template": "short: {text}"})}
    heavy = {"heavy": ProfileConfig("dense", compute_precision="float16")}
    profiles = {"default": ProfileConfig("dense", adapter_options=options), **others, **heavy}
    return ModelConfig(sie_id="org/m", tasks=tasks, profiles=profiles)


def prompt(config: ModelConfig, text: str = "T", **params: Any) -> str:
    return resolve_encode(config, EncodeParams(**params)).prompt.apply(text)


E5 = {"query_template": "query: {text}", "doc_template": "passage: {text}"}
INSTRUCT = {"query_template": "Instruct: {instruction}\nQuery:{text}", "default_instruction": "find it"}

INSTRUCTED = {"query_template": "q: {text}", "instructed_query_template": "i: {instruction}\nq: {text}"}


@pytest.mark.parametrize(
    ("options", "params", "expected"),
    [
        ({}, {}, "T"),
        (E5, {}, "passage: T"),
        (E5, {"options": {"is_query": True}}, "query: T"),
        (E5, {"options": {"is_query": True, "query_template": "Q {text}"}}, "Q T"),
        (E5, {"options": {"profile": "short"}}, "short: T"),
        (INSTRUCT, {}, "T"),
        (INSTRUCT, {"options": {"is_query": True}}, "Instruct: find it\nQuery:T"),
        (INSTRUCT, {"options": {"is_query": True}, "instruction": "seek"}, "Instruct: seek\nQuery:T"),
        (INSTRUCTED, {"options": {"is_query": True}, "instruction": "seek"}, "i: seek\nq: T"),
        (INSTRUCTED, {"options": {"is_query": True}}, "q: T"),
        (INSTRUCTED, {"instruction": "seek"}, "seek T"),
        ({}, {"instruction": "do"}, "do T"),
        (E5, {"instruction": "do"}, "passage: do T"),
    ],
)
def test_a_text_gets_the_prompt_of_request_over_profile_over_default(
    options: dict[str, Any], params: dict[str, Any], expected: str
) -> None:
    assert prompt(model(**options), **params) == expected


@given(st.text(), st.text(min_size=1))
def test_nothing_inside_text_or_instruction_is_interpreted(text: str, instruction: str) -> None:
    applied = Prompt("<{instruction}|{text}|{other.__class__}|{0}>", instruction).apply(text)
    assert applied == f"<{instruction}|{text}|{{other.__class__}}|{{0}}>"


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"output_types": ["sparse"]}, "it has: dense"),
        ({"output_dtype": "float99"}, "float32, float16, int8, uint8, binary, ubinary"),
        ({"options": {"profile": "nope"}}, "default, heavy, short"),
        ({"options": {"profile": "heavy"}}, "weights of its own"),
        ({"options": {"profile": 3}}, "no profile 3"),
        ({"options": {"is_query": "yes"}}, "true or false"),
        ({"options": {"query_template": 1, "is_query": True}}, "expected a text"),
        ({"options": {"output_types": "dense"}}, "expected a list"),
        ({"options": {"pooling": "cls"}}, "cannot be set per request; known options: "),
        ({"options": {"threshhold": 0.5}}, "threshhold cannot be set per request; did you mean threshold"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(params: dict[str, Any], named: str) -> None:
    with pytest.raises(Problem, match=named) as refused:
        resolve_encode(model(), EncodeParams(**params))
    assert refused.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("params", "code", "named"),
    [
        ({"instruction": "x" * 10_001}, ErrorCode.INPUT_TOO_LONG, "the instruction has 10001 characters"),
        ({"options": {"instruction": "x" * 10_001}}, ErrorCode.INPUT_TOO_LONG, "10001 characters, the limit is 10000"),
        ({"options": {"doc_template": "{text}" * 1700}}, ErrorCode.INPUT_TOO_LONG, "doc_template has 10200 characters"),
        ({"options": {"doc_template": "{text}" * 3}}, ErrorCode.INVALID_INPUT, r"\{text\} 3 times"),
        ({"options": {"doc_template": "{text}" + "{instruction}" * 3}}, ErrorCode.INVALID_INPUT, "instruction. 3"),
    ],
)
def test_a_prompt_is_not_much_longer_than_its_text(params: dict[str, Any], code: ErrorCode, named: str) -> None:
    with pytest.raises(Problem, match=named) as refused:
        resolve_encode(model(), EncodeParams(**params))
    assert refused.value.code is code


def test_a_text_may_be_read_twice() -> None:
    assert prompt(model(), options={"doc_template": "{text} again: {text}"}) == "T again: T"


def test_outputs_and_dtype_come_from_request_then_profile_then_default() -> None:
    both = Tasks(encode=EncodeTask(dense=VectorTask(8), sparse=VectorTask(9)))
    profile = model(tasks=both, output_types=["sparse"], output_dtype="float16")
    assert resolve_encode(model(tasks=both), EncodeParams()).output_types == ("dense",)
    resolved = resolve_encode(profile, EncodeParams())
    assert (resolved.output_types, resolved.output_dtype) == (("sparse",), "float16")
    asked = resolve_encode(profile, EncodeParams(output_types=["dense", "dense"], output_dtype="float32"))
    assert (asked.output_types, asked.output_dtype) == (("dense",), "float32")


def test_an_adapter_hears_whether_a_text_is_a_query() -> None:
    assert not resolve_encode(model(), EncodeParams()).is_query
    assert resolve_encode(model(), EncodeParams(options={"is_query": True})).is_query


def test_a_model_without_the_task_says_what_it_has() -> None:
    scorer = model(tasks=Tasks(score=EmptyTask()))
    with pytest.raises(Problem, match="no task 'encode'; it has: score"):
        resolve_encode(scorer, EncodeParams())
    assert no_such_task(model(), "extract").code is ErrorCode.INVALID_INPUT


def test_adapters_are_told_only_what_is_fixed_at_load_time() -> None:
    profile = ProfileConfig("dense", adapter_options={"pooling": "cls", **E5})
    assert load_options(profile) == {"pooling": "cls"}


@pytest.mark.parametrize("name", sorted(REQUEST_OPTIONS | RUNTIME_OPTIONS))
def test_an_option_that_is_null_was_not_said(name: str) -> None:
    tasks = Tasks(encode=EncodeTask(dense=VectorTask(8)), extract=ExtractTask(labels="optional"))
    own, null = model(tasks=tasks, **E5), {name: None}
    assert resolve_encode(own, EncodeParams(options=null)) == resolve_encode(own, EncodeParams())
    assert resolve_score(own, None, null) == resolve_score(own, None, {})
    assert resolve_extract(own, ExtractParams(options=null)) == resolve_extract(own, ExtractParams())
    assert check_profile(own, "org/m", null) is None


@pytest.mark.parametrize("name", ["short", "SHORT", "Short"])
def test_the_case_of_a_profile_does_not_matter(name: str) -> None:
    assert check_profile(model(), "org/m", {"profile": name}) == "short"
    assert prompt(model(), options={"profile": name}) == "short: T"


LONG = "x" * 100_000
ANYTHING = st.sampled_from([LONG, [LONG], {LONG: LONG}, {LONG}, [[1] * 50_000], 10**5000, -(10**5000)])


@given(name=st.sampled_from(sorted(REQUEST_OPTIONS | RUNTIME_OPTIONS | {LONG})), value=ANYTHING)
def test_a_refusal_repeats_only_the_beginning_of_what_was_sent(name: str, value: Any) -> None:
    tasks = Tasks(encode=EncodeTask(dense=VectorTask(8), sparse=VectorTask(8)), extract=ExtractTask(labels="optional"))
    own, options = model(tasks=tasks), {name: value}
    calls: list[Callable[[], object]] = [
        lambda: resolve_encode(own, EncodeParams(options=options)),
        lambda: resolve_encode(own, EncodeParams(output_types=[LONG])),
        lambda: resolve_encode(own, EncodeParams(output_dtype=LONG)),
        lambda: resolve_score(own, None, options),
        lambda: resolve_score(own, None, {"score_mode": "hybrid", **options}),
        lambda: resolve_extract(own, ExtractParams(options=options)),
        lambda: check_profile(own, f"org/m:{LONG}", {"profile": "short"}),
        lambda: check_profile(own, "org/m", options),
    ]
    messages: list[str] = []
    for call in calls:
        try:
            call()
        except Problem as problem:
            messages.append(problem.message)
    assert len(messages) >= 3
    assert all(len(message) < 1000 for message in messages)
