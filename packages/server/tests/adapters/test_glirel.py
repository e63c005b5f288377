"""GLiREL models find what the package `glirel` finds, and in long texts what it would miss."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sie_server.adapters.base import Labelled, LoadError, ModelSpec, Relation, UnsupportedInputError, WeightsSource
from sie_server.adapters.glirel import GlirelAdapter
from sie_server.adapters.shared.gliner_reader import WORD
from sie_server.core.lifecycle import ErrorClass
from sie_server.core.mentions import Mention
from tiny_gliner import LETTERS
from tiny_glirel import BERT, MAX_WORDS, Variety, write_glirel

LABELS = ("knows", "born in", "x")
TEXTS = [
    "ada met bob in a small town",
    "one, two; three-four five_six seven. eight",
    "the cat sat on a mat and saw two dogs running far away, then it ran.",
    "zoë und José aßen 東京 🍣 in der Straße",
]
TINY = {
    "ends, label by both": Variety(seed=1),
    "ends, projected, label by its marker": Variety({"hidden_size": 24, "label_embed_strategy": "ent_token"}, seed=2),
    "mean, bert, label by its first token": Variety(
        {"span_marker_mode": "markerv2", "label_embed_strategy": "label"}, BERT, seed=3
    ),
}
ASKED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (LABELS, {"threshold": 0.5, "top_k": 1}),
    (LABELS[::-1], {"threshold": 0.3, "top_k": 2}),
    (LABELS[:1], {"threshold": 0.1, "top_k": 10}),
    (LABELS, {"threshold": 0.0, "top_k": 10}),
]


def adapter(folder: Path, max_length: int | None = None, **options: Any) -> GlirelAdapter:
    glirel = GlirelAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, options, max_length))
    glirel.load("cpu")
    return glirel


def ask(loaded: GlirelAdapter, asked: list[Labelled]) -> list[tuple[Relation, ...]]:
    found: Any = loaded.run(loaded.prepare(asked), threads=1)["relations"]
    return list(found)


def entities(text: str) -> list[Mention]:
    """Every third word, one piece of two words, and one that has another inside it."""
    words = [match.span() for match in WORD.finditer(text)]
    found = [Mention(*words[at]) for at in range(0, len(words), 3)]
    return [*found, Mention(words[1][0], words[2][1]), Mention(words[0][0], words[2][1])]


def named(found: tuple[Relation, ...]) -> list[tuple[str, str, str]]:
    return [(each.head, each.tail, each.relation) for each in found]


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_relations_equal_those_of_glirel(tmp_path: Path, variety: Variety) -> None:
    folder = tmp_path / "model"
    oracle = write_glirel(folder, variety)
    loaded = adapter(folder)
    total = 0
    for labels, options in ASKED:
        found = ask(loaded, [Labelled(text, labels, options, tuple(entities(text))) for text in TEXTS])
        for text, ours in zip(TEXTS, found, strict=True):
            theirs = oracle(text, labels, entities(text), **options)
            assert named(ours) == [(text[slice(*head)], text[slice(*tail)], name) for head, tail, name, _ in theirs]
            assert [each.score for each in ours] == pytest.approx([score for *_, score in theirs], abs=1e-5)
            total += len(ours)
    assert total > 100  # or equality would say little


@pytest.fixture(scope="module", params=["ends, label by both", "mean, bert, label by its first token"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GlirelAdapter:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_glirel(folder, TINY[request.param])
    return adapter(folder)


SENTENCES = st.lists(st.text(LETTERS + "é東\x07", min_size=1, max_size=6), min_size=1, max_size=50).map(" ".join)


@st.composite
def questions(draw: st.DrawFn) -> Labelled:
    text = draw(SENTENCES)
    places = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    pieces = draw(st.lists(places.filter(lambda each: text[each[0] : each[1]].strip()), max_size=6, unique_by=tuple))
    labels = tuple(draw(st.permutations(LABELS))[: draw(st.integers(1, 3))])
    options = {"threshold": draw(st.sampled_from([0.1, 0.6])), "top_k": draw(st.integers(1, 3))}
    return Labelled(text, labels, options, tuple(Mention(*each) for each in pieces))


@given(st.lists(questions(), min_size=1, max_size=5), st.randoms())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_in_a_text_does_not_depend_on_its_batch(
    loaded: GlirelAdapter, asked: list[Labelled], random: Any
) -> None:
    order = random.sample(range(len(asked)), len(asked))
    together = ask(loaded, [asked[at] for at in order])
    for place, found in zip(order, together, strict=True):
        question = asked[place]
        names = {question.text[start:end] for start, end in question.mentions}
        assert all({each.head, each.tail} <= names and each.relation in question.labels for each in found)
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        alone = ask(loaded, [question])[0]
        assert [each.score for each in found] == pytest.approx([each.score for each in alone], abs=1e-5)
        assert sorted(named(found)) == sorted(named(alone))


def test_in_a_long_text_neighbours_within_half_a_window_are_compared_wherever_they_are(loaded: GlirelAdapter) -> None:
    names = [f"{letter}{'y' * at}" for at in range(5) for letter in LETTERS[: MAX_WORDS // 2]]
    text = " ".join(names)
    mentions = tuple(Mention(*match.span()) for match in WORD.finditer(text))
    question = Labelled(text, LABELS[:1], {"threshold": 0.0, "top_k": 1}, mentions)
    assert not loaded.prepare([question])[0].truncated
    (found,) = ask(loaded, [question])
    pairs = {(each.head, each.tail) for each in found}
    assert len(pairs) == len(found)
    near = {
        (names[one], names[other])
        for one, other in permutations(range(len(names)), 2)
        if abs(one - other) <= MAX_WORDS // 2
    }
    assert near <= pairs
    assert all(abs(names.index(head) - names.index(tail)) < MAX_WORDS for head, tail in pairs)


@pytest.mark.parametrize("mentions", [(), (Mention(0, 3),), (Mention(0, 3), Mention(1, 2))])
def test_without_two_entities_nothing_is_read_and_nothing_found(
    loaded: GlirelAdapter, mentions: tuple[Mention, ...]
) -> None:
    prepared = loaded.prepare([Labelled("ada met bob", LABELS, {}, mentions)])
    assert (prepared[0].tokens, prepared[0].truncated) == (0, False)
    assert loaded.run(prepared, threads=1)["relations"] == [()]


def test_a_text_beyond_the_catalogues_length_is_cut_and_says_so(tmp_path: Path) -> None:
    write_glirel(tmp_path / "model", TINY["ends, label by both"])
    text = "ada met bob " * 60
    mentions = tuple(Mention(at, at + 3) for at in range(0, len(text), 12))
    (prepared,) = adapter(tmp_path / "model", 150).prepare([Labelled(text, LABELS, {}, mentions)])
    assert prepared.truncated
    assert 0 < prepared.tokens <= 150


def test_options_of_the_model_are_the_defaults_of_its_requests(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_glirel(folder, TINY["ends, label by both"])
    text = TEXTS[2]
    asked, mentions = (text, LABELS), tuple(entities(text))
    lax, strict = adapter(folder, threshold=0.0, top_k=1), adapter(folder, threshold=1.0)
    every, none = (ask(each, [Labelled(*asked, {}, mentions)])[0] for each in (lax, strict))
    assert none == ()
    assert len(every) == len(mentions) * (len(mentions) - 1)
    assert ask(strict, [Labelled(*asked, {"threshold": 0.0, "top_k": 1}, mentions)])[0] == every


def test_no_labels_are_refused(loaded: GlirelAdapter) -> None:
    with pytest.raises(UnsupportedInputError, match="at least one label"):
        loaded.prepare([Labelled("ada met bob", (), {}, (Mention(0, 3), Mention(8, 11)))])


@pytest.mark.parametrize(
    ("damage", "error_class", "message"),
    [
        ({"scorer": "dot_norm"}, ErrorClass.DEPENDENCY, "scorer 'dot_norm'"),
        ({"refine_prompt": True}, ErrorClass.DEPENDENCY, "refine_prompt True"),
        ({"add_entity_markers": True}, ErrorClass.DEPENDENCY, "add_entity_markers True"),
        ({"max_entity_pair_distance": 5}, ErrorClass.DEPENDENCY, "max_entity_pair_distance 5"),
        ({"label_embed_strategy": None}, ErrorClass.DEPENDENCY, "label_embed_strategy None"),
        ({"max_len": None}, ErrorClass.UNKNOWN, "not that of a GLiREL"),
        ({"span_marker_mode": "markerv2"}, ErrorClass.UNKNOWN, r"span_marker\.projection\.0\.weight' is missing"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, damage: dict[str, Any], error_class: ErrorClass, message: str
) -> None:
    folder = tmp_path / "model"
    write_glirel(folder, TINY["ends, label by both"])
    file = folder / "glirel_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(LoadError, match=message) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class


def test_a_folder_as_the_package_saves_it_says_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_glirel(folder, TINY["ends, label by both"])
    (folder / "config.json").unlink()
    with pytest.raises(LoadError, match=r"no config\.json of its encoder.*docs/models/gliner\.md"):
        adapter(folder)


def test_a_layer_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_glirel(folder, TINY["ends, label by both"])
    tensors = load_file(folder / "model.safetensors")
    del tensors["prompt_rep_layer.3.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(LoadError, match=r"'prompt_rep_layer\.3\.bias' is missing"):
        adapter(folder)
