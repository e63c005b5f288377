"""GLiNER2 models write data in the form of a schema as the package `gliner2` does, from texts of any length."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import Data, Labelled, ModelSpec, Piece, UnsupportedInputError, Value, WeightsSource
from sie_server.adapters.gliner2 import Gliner2Adapter
from sie_server.adapters.shared.gliner2_data import Draft, Seen, data_of
from sie_server.core.schema import Field, Schema, read_schema
from tiny_gliner import LETTERS
from tiny_gliner2 import BERT, MAX_WORDS, Oracle, Variety, write_gliner2

TEXT: Mapping[str, Any] = {"type": "string"}
TEXTS = [
    "ada met bob in a small town.",
    "Ada Met Bob in a Small Town",
    "one, two; three-four five_six seven. eight!",
    "zoë und José aßen 東京 🍣 in der Straße e\N{COMBINING ACUTE ACCENT}s?",
    "",
]


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def lists(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": {"title": "Person", **objects(name=TEXT, towns=lists(TEXT))},
    "described": objects(
        name={**TEXT, "description": "who it is"}, town=TEXT, food={**lists(TEXT), "description": "Eaten there"}
    ),
    "nested": objects(
        place=TEXT, person=objects(name=TEXT, verbs=lists(TEXT)), things=lists(objects(thing=TEXT, parts=lists(TEXT)))
    ),
    "choices": objects(
        things=lists(
            objects(
                name=TEXT,
                size={"enum": ["small", "Large", "x"]},
                tags=lists({"enum": ["x", "New", "old", "LARGE"]}),
            )
        ),
        person=objects(name=TEXT, tags={"enum": ["tags", "|"]}),
    ),
    "relations": objects(
        knows=lists(objects(head=TEXT, tail=TEXT)),
        eats={**lists(objects(tail=TEXT, head=TEXT)), "description": "who eats what"},
    ),
    "questions": objects(
        mood={"enum": ["Good", "bad", "none of both"]},
        topics={**lists({"enum": ["food", "towns"]}), "description": "what it is of"},
    ),
    "all": objects(
        name=TEXT,
        mood={"enum": ["good", "bad"], "description": "how it sounds"},
        things=lists(objects(thing=TEXT, size={"enum": ["small", "large"]})),
        knows=lists(objects(head=TEXT, tail=TEXT)),
        topics=lists({"enum": ["food", "towns"]}),
    ),
}
LONG = {**BERT, "max_position_embeddings": 512}
TINY = {
    "plain": Variety(seed=1, instances=3),
    "attentive": Variety({"counting_layer": "count_lstm_v2"}, seed=2, instances=4),
    "attentive, bert": Variety({"counting_layer": "count_lstm_v2", "max_width": 3}, LONG, seed=3, instances=1),
}


def adapter(folder: Path, max_length: int | None = None, **options: Any) -> Gliner2Adapter:
    made = Gliner2Adapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, options, max_length))
    made.load("cpu")
    return made


def ask(loaded: Gliner2Adapter, schema: Schema, texts: Sequence[str], threshold: float) -> list[Data]:
    asked = [Labelled(text, options={"threshold": threshold}, schema=schema) for text in texts]
    found: Any = loaded.run(loaded.prepare(asked), threads=1)["data"]
    return list(found)


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_data_equal_those_of_gliner2(tmp_path: Path, variety: Variety) -> None:
    folder = write_gliner2(tmp_path / "model", variety)
    loaded, oracle = adapter(folder), Oracle(folder)
    total: dict[str, int] = {}
    for name, raw in SCHEMAS.items():
        schema = read_schema(raw)
        for threshold in (0.5, 0.3):
            for text, ours in zip(TEXTS, ask(loaded, schema, TEXTS, threshold), strict=True):
                theirs = expected(schema, oracle.data(text, schema, threshold), text, threshold)
                assert tuple(ours.values) == schema.keys
                same(ours.values, theirs)
                assert all(each.start is None or each.text == text[each.start : each.end] for each in ours.pieces())
                total[name] = total.get(name, 0) + sum(1 for _ in ours.pieces())
    assert min(total.values()) > 10, total  # or equality would say little


def expected(schema: Schema, answer: Mapping[str, Any], text: str, threshold: float) -> dict[str, Value]:
    """The package's answer as ours: without the full stop that it adds, each once, the first for the only one."""
    values: dict[str, Value] = {}
    for record in schema.records:
        found = _told(record.fields, answer.get(record.name), text, any)
        if record.many:
            values[str(record.key)] = tuple(found)
        elif record.key is not None:
            values[record.key] = found[0] if found else None
        else:
            values |= found[0] if found else {each.name: () if each.many else None for each in record.fields}
    roles = (Field("head"), Field("tail"))
    values |= {each.name: tuple(_told(roles, answer.get(each.name), text, all)) for each in schema.relations}
    for question in schema.questions:
        pieces = [Piece(*each) for each in answer[question.name]]
        sure = tuple(each for each in pieces if each.score >= threshold)
        values[question.name] = sure if question.many else max(pieces, key=lambda each: each.score)
    return {key: values[key] for key in schema.keys}


def _told(
    fields: Sequence[Field], answer: Any, text: str, is_told: Callable[[Iterable[object]], bool]
) -> list[dict[str, Value]]:
    found: list[dict[str, Value]] = []
    for each in answer or ():
        told = {field.name: _value(field, each[field.name], text) for field in fields}
        if is_told(told.values()) and _places(told) not in [_places(other) for other in found]:
            found.append(told)
    return found


def _value(field: Field, given: Any, text: str) -> Value:
    some = [given] if isinstance(given, dict) else given or []
    pieces = [Piece(each["text"], each["confidence"], each.get("start"), each.get("end")) for each in some]
    own = [_cut(each, text) for each in pieces if each.start is None or each.start < len(text)]
    if not field.many:
        return own[0] if own else None
    return tuple(own if field.choices else sorted(own, key=lambda each: each.start or 0))


def _cut(piece: Piece, text: str) -> Piece:
    if piece.start is None or piece.end is None:
        return piece
    return Piece(text[piece.start : piece.end], piece.score, piece.start, min(piece.end, len(text)))


def _places(value: Any) -> Any:
    match value:
        case Piece():
            return value.text, value.start
        case None:
            return None
        case tuple():
            return [_places(each) for each in value]
        case _:
            return {name: _places(each) for name, each in value.items()}


def same(ours: Value, theirs: Value) -> None:
    assert _places(ours) == _places(theirs)
    scores, others = ([each.score for each in Data({"": value}).pieces()] for value in (ours, theirs))
    assert scores == pytest.approx(others, abs=1e-5)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Gliner2Adapter:
    return adapter(write_gliner2(tmp_path_factory.mktemp("tiny") / "model", TINY["attentive"]))


QUESTIONS = st.builds(
    Labelled,
    st.lists(st.text(LETTERS + "É東\x07🍣.", max_size=6), max_size=30).map(" ".join),
    options=st.fixed_dictionaries({"threshold": st.sampled_from([0.3, 0.6])}),
    schema=st.sampled_from([*map(read_schema, SCHEMAS.values())]),
)


@given(st.lists(QUESTIONS, min_size=1, max_size=4), st.randoms())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_of_a_text_do_not_depend_on_its_batch(loaded: Gliner2Adapter, asked: list[Labelled], random: Any) -> None:
    order = random.sample(range(len(asked)), len(asked))
    batch = [*(asked[at] for at in order), Labelled("ada met bob", ("person",))]
    together: Any = loaded.run(loaded.prepare(batch), threads=1)
    assert together["data"][-1] is None
    assert [each is None for each in together["entities"]] == [*(True for _ in order), False]
    for row, place in enumerate(order):
        alone: Any = loaded.run(loaded.prepare([asked[place]]), threads=1)
        same(together["data"][row].values, alone["data"][0].values)


def test_nothing_of_a_long_text_is_lost(loaded: Gliner2Adapter) -> None:
    text = " ".join(LETTERS[at % 26] * (1 + at % 4) for at in range(5 * MAX_WORDS))
    schema = read_schema(SCHEMAS["all"])
    (prepared,) = loaded.prepare([Labelled(text, schema=schema)])
    assert not prepared.truncated
    assert len(prepared.payload.reading.windows) > 4
    (found,) = ask(loaded, schema, [text], 0.01)
    records: Any = found.values["things"]
    starts = [each["thing"].start for each in records if each["thing"]]
    assert max(starts) > 0.8 * len(text)
    assert len(starts) > len(prepared.payload.reading.windows)
    assert len({str(_places(each)) for each in records}) == len(records)


def test_what_a_whole_text_is_its_beginning_says(loaded: Gliner2Adapter) -> None:
    asked = Labelled("ada met bob " * MAX_WORDS, schema=read_schema(SCHEMAS["questions"]))
    (prepared,) = loaded.prepare([asked])
    assert len(prepared.payload.reading.windows) == 1
    assert not prepared.truncated


def test_a_model_that_expects_no_records_writes_none(tmp_path: Path) -> None:
    folder = write_gliner2(tmp_path / "model", Variety(seed=1, instances=False))
    (found,) = ask(adapter(folder), read_schema(SCHEMAS["nested"]), TEXTS[:1], 0.0)
    assert found.values == {"place": None, "person": None, "things": ()}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (objects(**{"a[C]": TEXT}), r"'a\[C\]' holds \[C\]"),
        (objects(a={**TEXT, "description": "of [P]"}), r"'of \[P\]' holds \[P\]"),
        (objects(a=objects(b={"enum": ["x", "[SEP_TEXT]"]})), r"holds \[SEP_TEXT\]"),
        ({"title": "[DESCRIPTION]", **objects(a=TEXT)}, r"holds \[DESCRIPTION\]"),
        (objects(**{f"name {at} of it": TEXT for at in range(100)}), "100 names of the schema take .* at once"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, schema: dict[str, Any], named: str) -> None:
    loaded = adapter(write_gliner2(tmp_path / "model", Variety(encoder=BERT)))
    with pytest.raises(UnsupportedInputError, match=named):
        loaded.prepare([Labelled("a text", schema=read_schema(schema))])


def piece(text: str, start: int, score: float) -> Piece:
    return Piece(text, score, start, start + len(text))


def test_of_windows_a_record_that_is_there_once_has_the_surest_values() -> None:
    schema = read_schema(objects(name=TEXT, towns=lists(TEXT), size={**TEXT}))
    rome, roma, paris, ada, bob = (
        *(piece("Rome", 10, 0.6), piece("Rome is", 10, 0.7), piece("Paris", 30, 0.9)),
        *(piece("Ada", 0, 0.6), piece("Bob", 40, 0.8)),
    )
    windows = [
        Seen([[((ada,), (rome, paris), ())]], [], []),
        Seen([[]], [], []),
        Seen([[((bob,), (roma,), ())]], [], []),
    ]
    assert data_of(schema, windows, 0.5).values == {"name": bob, "towns": (roma, paris), "size": None}


def test_of_windows_records_and_pairs_are_told_once_and_the_surest_answers() -> None:
    schema = read_schema(SCHEMAS["all"])
    one, again = (((piece("cup", 3, score),), (Piece("small", score),)) for score in (0.6, 0.7))
    other: Draft = ((piece("cup", 30, 0.8),), ())
    pair = ((piece("Ada", 0, 0.9),), (piece("Bob", 8, 0.9),))
    windows = [
        Seen([[], [one]], [[pair]], [[0.4, 0.6], [0.2, 0.9]]),
        Seen([[], [again, other]], [[pair]], [[0.7, 0.3], [0.3, 0.1]]),
    ]
    assert data_of(schema, windows, 0.5).values == {
        "name": None,
        "mood": Piece("good", 0.7),
        "things": (
            {"thing": one[0][0], "size": one[1][0]},
            {"thing": other[0][0], "size": None},
        ),
        "knows": ({"head": pair[0][0], "tail": pair[1][0]},),
        "topics": (Piece("towns", 0.9),),
    }
