"""GLiNERs with relations find the entities and relations that the package `gliner` finds, in texts of any length."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.adapters.base import (
    Entity,
    Labelled,
    LoadError,
    ModelSpec,
    Relation,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.gliner import GlinerAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_gliner import BERT, LETTERS, MAX_WORDS, Variety, relation_oracle, write_gliner

LABELS = ("person", "Place of birth", "x")
RELATIONS = ("knows", "is born in", "y")
TEXTS = [
    "ada met bob in a small town",
    "Ada Met Bob, in a Small Town.",
    "one two three-four five_six seven eight",
    "the cat sat on a mat and saw two dogs running far away then it ran",
    "zoë und José aßen 東京 in der Straße",
    "ada",
]
TINY = {
    "pieces": Variety({"max_width": 2}, seed=2, relates=True),
    "pieces, projected": Variety({"hidden_size": 24, "max_width": 3}, BERT, seed=3, relates=True),
    "label words": Variety({"embed_ent_token": False, "embed_rel_token": False}, seed=3, relates=True),
}
CHOICES: list[dict[str, Any]] = [
    {"threshold": 0.5},
    {"threshold": 0.2, "relation_threshold": 0.4},
    {"threshold": 0.3, "flat_ner": False, "multi_label": True},
]


def adapter(folder: Path, max_length: int | None = None, **options: Any) -> GlinerAdapter:
    made = GlinerAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, options, max_length))
    made.load("cpu")
    return made


def ask(loaded: GlinerAdapter, asked: list[Labelled]) -> list[tuple[tuple[Entity, ...], tuple[Relation, ...]]]:
    found: Any = loaded.run(loaded.prepare(asked), threads=1)
    return [*zip(found["entities"], found["relations"], strict=True)]


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_entities_and_relations_equal_those_of_gliner(tmp_path: Path, variety: Variety) -> None:
    folder = write_gliner(tmp_path / "model", variety)
    loaded, oracle = adapter(folder), relation_oracle(folder)
    total, none = 0, 0
    for options in CHOICES:
        for relations in (RELATIONS, RELATIONS[1:2]):
            asked = [Labelled(text, LABELS, {**options, "relation_labels": [*relations]}) for text in TEXTS]
            for text, (entities, related) in zip(TEXTS, ask(loaded, asked), strict=True):
                theirs, others = oracle(text, LABELS, relations, **options)
                assert {(e.label, e.start, e.end): e.score for e in entities} == pytest.approx(
                    {(label, start, end): score for _, label, score, start, end in theirs}, abs=1e-5
                )
                expected = {(head, tail, relation): score for head, tail, relation, score in others}
                ours = sorted((each.relation, each.head, each.tail) for each in related)
                assert ours == sorted((name, text[slice(*head)], text[slice(*tail)]) for head, tail, name in expected)
                scores = [each.score for each in related]
                assert scores == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-5)
                total += len(related)
                none += sum(len(relations) for one in entities for other in entities if one != other) - len(related)
    assert min(total, none) > 20, (total, none)  # or equality would say little


@pytest.fixture(scope="module", params=["pieces", "pieces, projected"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GlinerAdapter:
    return adapter(write_gliner(tmp_path_factory.mktemp("tiny") / "model", TINY[request.param]))


QUESTIONS = st.builds(
    Labelled,
    st.lists(st.text(LETTERS + "É東\x07🍣.", max_size=6), max_size=30).map(" ".join),
    st.integers(1, 3).map(lambda count: LABELS[:count]),
    st.fixed_dictionaries(
        {"threshold": st.sampled_from([0.3, 0.6])},
        optional={"relation_labels": st.integers(0, 3).map(lambda count: [*RELATIONS[:count]])},
    ),
)


@given(st.lists(QUESTIONS, min_size=1, max_size=4), st.randoms())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_in_a_text_does_not_depend_on_its_batch(
    loaded: GlinerAdapter, asked: list[Labelled], random: Any
) -> None:
    order = random.sample(range(len(asked)), len(asked))
    together = ask(loaded, [asked[at] for at in order])
    for row, place in enumerate(order):
        (alone,) = ask(loaded, [asked[place]])
        assert (together[row][1] is None) is (not asked[place].options.get("relation_labels"))
        for at in (0, 1):
            found, expected = ([*(some[at] or ())] for some in (together[row], alone))
            assert sorted(map(told, found)) == sorted(map(told, expected))
            assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-5)


def told(found: Any) -> tuple[Any, ...]:
    if isinstance(found, Entity):
        return found.label, found.start, found.end
    return found.relation, found.head, found.tail


def test_relations_are_found_wherever_a_window_holds_both(loaded: GlinerAdapter) -> None:
    text = " ".join(LETTERS[at % 26] * (1 + at // 26) for at in range(3 * MAX_WORDS))
    options = {"threshold": 0.2, "relation_threshold": 0.01, "relation_labels": [*RELATIONS[:1]]}
    ((entities, relations),) = ask(loaded, [Labelled(text, LABELS[:1], options)])
    words = text.split()
    first_words = {each.text: words.index(each.text.split()[0]) for each in entities}
    far = [abs(first_words[each.head] - first_words[each.tail]) for each in relations]
    assert max(far) < MAX_WORDS
    late = max(first_words[each.head] for each in relations)
    assert late > 2 * MAX_WORDS
    assert len({(each.head, each.tail) for each in relations}) == len(relations)


def test_a_model_without_relations_refuses_to_be_asked_for_them(tmp_path: Path) -> None:
    plain = adapter(write_gliner(tmp_path / "model", Variety(seed=1)))
    with pytest.raises(UnsupportedInputError, match="finds no relations; leave out options"):
        plain.prepare([Labelled("a", ("b",), {"relation_labels": ["c"]})])
    assert plain.capabilities.outputs == {"entities"}


@pytest.mark.parametrize(
    ("damage", "error_class", "message"),
    [
        ({"relations_layer": "gcn"}, ErrorClass.DEPENDENCY, "relations_layer 'gcn'"),
        ({"triples_layer": "distmult"}, ErrorClass.DEPENDENCY, "triples_layer 'distmult'"),
        ({"span_mode": "token_level"}, ErrorClass.DEPENDENCY, "span_mode 'token_level'"),
        ({"rel_token": "<<OTHER>>"}, ErrorClass.UNKNOWN, "no token '<<OTHER>>'"),
        ({"model_type": "gliner_bi_encoder_span"}, ErrorClass.DEPENDENCY, "relations_layer 'none'"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, damage: dict[str, Any], error_class: ErrorClass, message: str
) -> None:
    folder = write_gliner(tmp_path / "model", TINY["pieces"])
    file = folder / "gliner_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(LoadError, match=message) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class
