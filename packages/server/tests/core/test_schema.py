"""An output_schema is read whole, or refused by what is wrong with it."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import MAX_LABELS
from sie_server.core import schema as core
from sie_server.core.extract_options import MAX_LABEL_CHARS
from sie_server.core.schema import MAX_PROPERTIES, Pairs, Question, Record, Schema, read_schema

TEXT: dict[str, Any] = {"type": "string"}


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


class Part(BaseModel):
    """A part of something."""

    name: str = Field(description="what it is called")
    size: Literal["small", "large"] | None = None
    colours: list[Literal["red", "blue"]] = []
    kind: Literal["part"] = "part"


class Pair(BaseModel):
    head: str
    tail: str


class Product(BaseModel):
    """A thing that is sold."""

    name: str
    prices: list[str] | None = None
    mood: Literal["good", "bad"] = Field(description="how it sounds")
    topics: list[Literal["food", "toys"]] = []
    maker: Part | None = None
    parts: list[Part]
    owns: list[Pair] = Field([], description="who owns what")


def test_what_pydantic_writes_is_read_as_it_is() -> None:
    fields = (
        core.Field("name", description="what it is called"),
        core.Field("size", choices=("small", "large")),
        core.Field("colours", many=True, choices=("red", "blue")),
        core.Field("kind", choices=("part",)),
    )
    assert read_schema(Product.model_json_schema()) == Schema(
        ("name", "prices", "mood", "topics", "maker", "parts", "owns"),
        (
            Record(None, "Product", (core.Field("name"), core.Field("prices", many=True))),
            Record("maker", "maker", fields),
            Record("parts", "parts", fields, many=True),
        ),
        (Pairs("owns", "who owns what"),),
        (
            Question("mood", ("good", "bad"), description="how it sounds"),
            Question("topics", ("food", "toys"), many=True),
        ),
    )


def test_types_may_be_left_out_where_they_are_clear_and_null_is_always_allowed() -> None:
    plain = {"a": TEXT, "b": {"type": "array", "items": TEXT}, "c": {"type": "string", "enum": ["x", "y"]}}
    loose = {
        "a": {"type": ["string", "null"]},
        "b": {"anyOf": [{"items": {"oneOf": [TEXT, {"type": "null"}]}}, {"type": "null"}]},
        "c": {"enum": ["x", None, "y"], "type": ["null", "string"]},
    }
    assert read_schema({"properties": loose}) == read_schema(objects(**plain))


NAMES = st.text(min_size=1, max_size=20).filter(str.strip)
ENUMS = st.lists(NAMES, min_size=1, max_size=5, unique_by=str.lower).map(lambda some: {"enum": some})
VALUES = st.one_of(st.just(TEXT), ENUMS)
FIELDS = st.one_of(VALUES, VALUES.map(lambda each: {"type": "array", "items": each}))
OBJECTS = st.dictionaries(NAMES, FIELDS, min_size=1, max_size=5).map(lambda some: objects(**some))
PROPERTIES = st.one_of(FIELDS, OBJECTS, OBJECTS.map(lambda each: {"type": "array", "items": each}))


@given(st.dictionaries(NAMES, PROPERTIES, min_size=1, max_size=6))
def test_every_property_is_asked_once_and_keeps_its_name_and_place(properties: dict[str, Any]) -> None:
    schema = read_schema(objects(**properties))
    assert schema.keys == tuple(properties)
    own = [field.name for record in schema.records if record.key is None for field in record.fields]
    others = [each.key for each in schema.records if each.key is not None]
    asked = [*own, *others, *(each.name for each in schema.relations), *(each.name for each in schema.questions)]
    assert sorted(asked) == sorted(properties)
    for record in schema.records:
        if record.key is not None:
            inner = properties[record.key]
            inner = inner.get("items", inner)
            assert [field.name for field in record.fields] == [*inner["properties"]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "enum",
                    "anyOf",
                    "$ref",
                    "$defs",
                    "description",
                    "title",
                    "additionalProperties",
                ]
            )
            | st.sampled_from(["object", "array", "a"]),
            inner | st.sampled_from(["object", "array", "string", "#/$defs/a"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "title", "$ref", "$defs", "anyOf"]), JSON))
def test_whatever_is_sent_is_read_or_refused(schema: dict[str, Any]) -> None:
    found = read(schema)
    if isinstance(found, Problem):
        assert found.code in (ErrorCode.INVALID_INPUT, ErrorCode.INPUT_TOO_LONG)
    else:
        assert found.keys


def read(schema: dict[str, Any]) -> Schema | Problem:
    try:
        return read_schema(schema)
    except Problem as problem:
        return problem


LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({}, "output_schema.type is None; expected one of: object, array, string"),
        ({"type": "array", "items": TEXT}, "output_schema is of type array; expected an object"),
        ({"type": "object"}, r"output_schema\.properties is None"),
        (objects(), r"output_schema\.properties is {}"),
        (objects(a={"type": "number"}), r"properties\.a\.type is 'number'.*ask for a string"),
        (objects(a={"type": ["string", "number"]}), r"type is \['string', 'number'\]"),
        (objects(a={**TEXT, "pattern": "x"}), r"properties\.a has pattern, which no model keeps to"),
        (objects(a={**TEXT, "minLength": 1, "format": "date"}), "has format, minLength"),
        ({**objects(a=TEXT), "additionalProperties": TEXT}, r"additionalProperties is a schema"),
        (objects(a=objects(b=objects(c=TEXT))), r"properties\.a\.properties\.b is an object inside an object"),
        (objects(a={"type": "array", "items": {"type": "array", "items": TEXT}}), "a list inside a list"),
        (objects(a={"type": "array"}), r"items is None; expected a schema"),
        (objects(a="string"), r"properties\.a is 'string'; expected a schema"),
        (objects(**{" ": TEXT}), "a property of output_schema is ' '"),
        (objects(a={"enum": []}), r"enum is \[\]; expected a list of texts"),
        (objects(a={"enum": ["x", 1]}), r"a choice of output_schema\.properties\.a\.enum is 1"),
        (objects(a={"enum": ["x", "x"]}), "a choice twice"),
        (objects(a=objects(b={"enum": ["x", "X"]})), "differ in case only"),
        (objects(a={"anyOf": [TEXT, {"type": "array"}]}), r"anyOf leaves a choice"),
        (objects(a={"$ref": "#/$defs/none"}), r"\$ref is '#/\$defs/none'"),
        (objects(a={"$ref": "http://elsewhere"}), r"\$ref is 'http://elsewhere'"),
        (LOOP, "more than 8 references"),
        (objects(a={**TEXT, "description": 5}), "description is 5"),
        ({"title": "", **objects(a=TEXT)}, r"output_schema\.title is ''"),
    ],
)
def test_what_cannot_be_kept_to_is_refused_by_name(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(Problem, match=named) as refused:
        read_schema(schema)
    assert refused.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (objects(**{f"p{at}": TEXT for at in range(MAX_PROPERTIES + 1)}), "too many properties, the limit is 100"),
        (objects(a=objects(**{f"p{at}": TEXT for at in range(MAX_PROPERTIES)})), "too many properties"),
        (objects(a={"enum": [str(at) for at in range(MAX_LABELS + 1)]}), "too many choices in its enums"),
        (objects(**{"a" * (MAX_LABEL_CHARS + 1): TEXT}), "has 1001 characters, the limit is 1000"),
        (objects(a={"enum": ["a" * (MAX_LABEL_CHARS + 1)]}), "has 1001 characters"),
        (objects(a={**TEXT, "description": "a" * (MAX_LABEL_CHARS + 1)}), "description has 1001 characters"),
    ],
)
def test_what_is_too_large_is_refused_with_its_limit(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(Problem, match=named) as refused:
        read_schema(schema)
    assert refused.value.code is ErrorCode.INPUT_TOO_LONG
