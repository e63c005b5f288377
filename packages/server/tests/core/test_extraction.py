from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.catalog import ExtractTask, ModelConfig, ProfileConfig, Tasks
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_LABELS, ExtractParams
from sie_server.core.extract_options import MAX_LABEL_CHARS
from sie_server.core.extraction import check_finite, resolve_extract


def model(labels: Any = "required", **options: Any) -> ModelConfig:
    profiles = {
        "default": ProfileConfig("token_classifier", adapter_options=options),
        "strict": ProfileConfig("token_classifier", adapter_options={**options, "threshold": 0.9}),
    }
    return ModelConfig("org/m", Tasks(extract=ExtractTask(labels)), profiles)


LABELS = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=30, unique=True)


@given(LABELS)
def test_labels_stay_as_they_are_and_where_they_are(labels: list[str]) -> None:
    assert resolve_extract(model(), ExtractParams(labels=labels)).labels == tuple(labels)


@given(LABELS, st.data())
def test_a_label_that_is_there_twice_or_empty_is_refused_by_its_place(labels: list[str], data: Any) -> None:
    at = data.draw(st.integers(1, len(labels)))
    for wrong in (labels[0], "", " \t"):
        spoiled = [*labels[:at], wrong, *labels[at:]]
        with pytest.raises(Problem, match=f"label {at}") as refused:
            resolve_extract(model(), ExtractParams(labels=spoiled))
        assert refused.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("mode", "labels", "named"),
    [
        ("required", None, "send params.labels"),
        ("required", [], "send params.labels"),
        ("none", ["a"], "reads no labels"),
        ("optional", [str(at) for at in range(MAX_LABELS + 1)], "1001 labels, the limit is 1000"),
        ("optional", ["a", "b" * (MAX_LABEL_CHARS + 1)], "label 1 has 1001 characters"),
    ],
)
def test_labels_are_what_the_model_needs(mode: str, labels: list[str] | None, named: str) -> None:
    with pytest.raises(Problem, match=named):
        resolve_extract(model(mode), ExtractParams(labels=labels))


@pytest.mark.parametrize(("mode", "labels"), [("optional", None), ("optional", ["a"]), ("none", None), ("none", [])])
def test_labels_may_be_left_out_where_the_model_has_its_own(mode: str, labels: list[str] | None) -> None:
    assert resolve_extract(model(mode), ExtractParams(labels=labels)).labels == tuple(labels or ())


@pytest.mark.parametrize("ignored", ["output_schema", "instruction"])
def test_what_the_model_cannot_use_is_refused_and_not_dropped(ignored: str) -> None:
    params = ExtractParams(labels=["a"], **{ignored: {"type": "object"} if ignored == "output_schema" else "find"})  # type: ignore[arg-type]
    with pytest.raises(Problem, match=f"'org/m' cannot use {ignored}"):
        resolve_extract(model(), params)


def test_a_model_that_writes_data_gets_a_schema_in_the_place_of_labels() -> None:
    task = Tasks(extract=ExtractTask(output_schema="optional"))
    writing = ModelConfig("org/m", task, {"default": ProfileConfig("finder", adapter_options={"evidence": True})})
    wanted = resolve_extract(writing, ExtractParams(output_schema={"properties": {"name": {"type": "string"}}}))
    assert wanted.schema is not None
    assert (wanted.labels, wanted.schema.keys, wanted.tells_evidence) == ((), ("name",), True)
    assert resolve_extract(writing, ExtractParams(labels=["a"])).schema is None
    with pytest.raises(Problem, match="send one of them"):
        resolve_extract(writing, ExtractParams(labels=["a"], output_schema={"properties": {"name": {}}}))
    with pytest.raises(Problem, match="'org/m' cannot use instruction"):
        resolve_extract(writing, ExtractParams(labels=["a"], instruction="find"))


def test_the_request_beats_its_profile_which_beats_the_family() -> None:
    def options(own: ModelConfig, **asked: Any) -> dict[str, Any]:
        return dict(resolve_extract(own, ExtractParams(labels=["a"], options=asked)).options)

    assert options(model()) == {}
    assert options(model(threshold=0.5, pooling="cls")) == {"threshold": 0.5}  # what is the adapter's own stays there
    assert options(model(threshold=0.5), profile="strict") == {"threshold": 0.9}
    assert options(model(threshold=0.5), profile="strict", threshold=0.1) == {"threshold": 0.1}
    assert options(model(multi_label=True), threshold=0, is_query=True) == {"threshold": 0, "multi_label": True}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("threshold", [0, 0.5, 1, 1.0], [-0.1, 1.1, True, "0.5", [0.5], float("nan")]),
        ("multi_label", [True, False], [1, "yes"]),
        ("evidence", [True, False], [1, "yes"]),
        ("flat_ner", [True, False], [0]),
        (
            "hypothesis_template",
            ["{}", "about {}.", "{x} {} {text}"],
            ["", "no slot", "{} {}", "{0}", 5, "{:>9999999}"],
        ),
        ("aggregation_strategy", ["first", "average", "max", "simple"], ["none", 1, ["first"]]),
        ("stride", [0, 64], [-1, 1.5, True, "64"]),
        ("findings", ["entities", "classifications"], ["relations", True, ["entities"]]),
        ("task", ["topic", "x" * 1000], ["", " ", "x" * 1001, 5]),
        ("relation_labels", [[], ["knows", "x" * 1000]], ["knows", ["a", "a"], [""], [5], ["x" * 1001], ["a"] * 1001]),
        ("relation_threshold", [0, 0.5, 1], [-0.1, True, "0.5"]),
        ("top_k", [1, 10], [0, -1, 1.5, True, "10"]),
        ("max_new_tokens", [1, 4096], [0, 4097, -1, 1.5, True, "10"]),
        ("num_beams", [1, 8], [0, 9, -1, 1.5, True, "3"]),
    ],
)
def test_an_option_is_what_it_may_be(name: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        params = ExtractParams(labels=["a"], options={name: value})
        assert resolve_extract(model(), params).options == {name: value}
    for value in wrong:
        with pytest.raises(Problem, match=rf"options\.{name} is .*expected"):
            resolve_extract(model(), ExtractParams(labels=["a"], options={name: value}))


def test_models_that_relate_entities_are_told_which_there_are() -> None:
    task = Tasks(extract=ExtractTask(entities="required"))
    relating = ModelConfig("org/m", task, {"default": ProfileConfig("finder")})
    assert resolve_extract(relating, ExtractParams(labels=["a"])).reads_entities
    assert not resolve_extract(model(), ExtractParams(labels=["a"])).reads_entities


@pytest.mark.parametrize("reads", ["optional", "required"])
def test_an_instruction_is_for_models_that_read_one_and_has_no_spaces_around_it(reads: Any) -> None:
    asked = ModelConfig("org/m", Tasks(extract=ExtractTask("none", instruction=reads)), model().profiles)
    assert resolve_extract(asked, ExtractParams(instruction=" what is it?\n")).instruction == "what is it?"
    assert resolve_extract(asked, ExtractParams()).instruction == ""
    with pytest.raises(Problem, match=r"params\.instruction has 10001 characters, the limit is 10000") as refused:
        resolve_extract(asked, ExtractParams(instruction="x" * 10_001))
    assert refused.value.code is ErrorCode.INPUT_TOO_LONG


def test_a_score_that_is_no_number_names_its_item() -> None:
    check_finite([0.0, 1.0], 3)
    with pytest.raises(Problem, match="item 3"):
        check_finite([0.5, float("nan")], 3)
