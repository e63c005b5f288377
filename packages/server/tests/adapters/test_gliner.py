"""GLiNER models find what the package `gliner` finds, and in long texts what it would miss."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sie_server.adapters.base import Entity, Labelled, LoadError, ModelSpec, UnsupportedInputError, WeightsSource
from sie_server.adapters.gliner import GlinerAdapter, merged
from sie_server.core.lifecycle import ErrorClass
from tiny_gliner import (
    BERT,
    LABEL_BERT,
    LETTERS,
    MAX_WORDS,
    MODERNBERT,
    POSITIONS,
    Variety,
    gliner_oracle,
    write_gliner,
)

LABELS = ("person", "place of birth", "x")
TEXTS = [
    "ada met bob in a small town",
    "a",
    "one, two; three-four five_six seven. eight",
    "the cat sat on a mat and saw two dogs running far away, then it ran.",
    "",
    "  \n\t ",
    "zoë und José aßen 東京 🍣 in der Straße",
]
TINY = {
    "deberta": Variety(seed=6),
    "deberta, projected": Variety({"hidden_size": 16}, seed=8),
    "deberta, without an lstm": Variety({"num_rnn_layers": 0, "max_width": 2}, seed=7),
    "deberta, label told by its first token": Variety({"embed_ent_token": False, "num_rnn_layers": 2}, seed=12),
    "bert": Variety(encoder=BERT, seed=8),
    "by token": Variety(by_token=True, seed=2),
    "by token, bert, projected, without an lstm": Variety(
        {"hidden_size": 16, "num_rnn_layers": 0}, BERT, by_token=True, seed=9
    ),
    "two encoders": Variety(encoder=MODERNBERT, labels=LABEL_BERT, seed=3, scale=1.7),
    "two encoders, both projected": Variety({"hidden_size": 24}, MODERNBERT, labels=LABEL_BERT, seed=4, scale=1.7),
    "two encoders, neither projected": Variety({"max_width": 3}, labels=BERT, seed=5, scale=1.7),
    "two encoders, by token": Variety(encoder=BERT, labels=LABEL_BERT, by_token=True, seed=7, scale=2.0),
}
ASKED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (LABELS, {}),
    (LABELS[::-1], {"threshold": 0.3}),
    (LABELS, {"flat_ner": False, "threshold": 0.4}),
    (LABELS[:1], {"threshold": 0.1}),
    (LABELS, {"multi_label": True, "threshold": 0.2}),
    (LABELS, {"flat_ner": False, "multi_label": True, "threshold": 0.6}),
]
LONG = " ".join(LETTERS[at % 26] * (1 + at % 4) for at in range(5 * MAX_WORDS))


def adapter(folder: Path, max_length: int | None = None, **options: Any) -> GlinerAdapter:
    gliner = GlinerAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, options, max_length))
    gliner.load("cpu")
    return gliner


def ask(loaded: GlinerAdapter, asked: list[Labelled]) -> list[tuple[Entity, ...]]:
    found: Any = loaded.run(loaded.prepare(asked), threads=1)["entities"]
    return list(found)


def assert_same(found: tuple[Entity, ...], expected: Any) -> None:
    assert [(e.text, e.label, e.start, e.end) for e in found] == [(t, n, a, b) for t, n, _, a, b in expected]
    assert [e.score for e in found] == pytest.approx([score for _, _, score, _, _ in expected], abs=1e-5)


@pytest.mark.parametrize("variety", TINY.values(), ids=TINY)
def test_entities_equal_those_of_gliner(tmp_path: Path, variety: Variety) -> None:
    folder = write_gliner(tmp_path / "model", variety)
    loaded, oracle = adapter(folder), gliner_oracle(folder, by_token=variety.by_token, bi=bool(variety.labels))
    total = 0
    for labels, options in ASKED:
        found = ask(loaded, [Labelled(text, labels, options) for text in TEXTS])
        for ours, theirs in zip(found, oracle(TEXTS, labels, **options), strict=True):
            assert_same(ours, theirs)
            total += len(ours)
    assert total > 100  # or equality would say little


@pytest.fixture(scope="module", params=["deberta", "bert", "by token", "two encoders"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GlinerAdapter:
    return adapter(write_gliner(tmp_path_factory.mktemp("tiny") / "model", TINY[request.param]))


SENTENCES = st.lists(st.text(LETTERS + "é東\x07🍣\N{ZERO WIDTH SPACE}", max_size=6), max_size=30).map(" ".join)
QUESTIONS = st.builds(
    Labelled,
    SENTENCES,
    st.permutations(LABELS).flatmap(lambda labels: st.integers(1, 3).map(lambda count: tuple(labels[:count]))),
    st.fixed_dictionaries({"threshold": st.sampled_from([0.3, 0.6]), "flat_ner": st.booleans()}),
)


@given(st.lists(QUESTIONS, min_size=1, max_size=5), st.randoms())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_in_a_text_does_not_depend_on_its_batch(
    loaded: GlinerAdapter, asked: list[Labelled], random: Any
) -> None:
    order = random.sample(range(len(asked)), len(asked))
    together = ask(loaded, [asked[at] for at in order])
    for place, found in zip(order, together, strict=True):
        question = asked[place]
        assert all(entity.text == question.text[entity.start : entity.end] for entity in found)
        assert all(entity.label in question.labels for entity in found)
        alone = ask(loaded, [question])[0]
        assert_same(found, [(e.text, e.label, e.score, e.start, e.end) for e in alone])


def test_what_the_tokenizer_drops_moves_nothing(tmp_path: Path) -> None:
    loaded = adapter(write_gliner(tmp_path / "model", TINY["bert"]))
    with_bell, without = (Labelled(f"ada {mark} met bob", LABELS, {"threshold": 0.01}) for mark in ("\x07", " "))
    assert [each.tokens for each in loaded.prepare([with_bell])] == [each.tokens for each in loaded.prepare([without])]
    found, expected = ask(loaded, [with_bell, without])
    assert_same(found, [(e.text, e.label, e.score, e.start, e.end) for e in expected if "ada  " not in e.text])


def test_nothing_of_a_long_text_is_lost(loaded: GlinerAdapter) -> None:
    question = Labelled(LONG, LABELS, {"threshold": 0.01})
    found = ask(loaded, [question])[0]
    prepared = loaded.prepare([question])[0]  # labels of a second encoder are known by now
    assert not prepared.truncated
    assert prepared.tokens == sum(len(window.ids) for window in prepared.payload.reading.windows)
    assert max(entity.end for entity in found) > 0.9 * len(LONG)
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_a_text_beyond_the_catalogues_length_is_cut_and_says_so(tmp_path: Path) -> None:
    loaded = adapter(write_gliner(tmp_path / "model", TINY["deberta"]), 150)
    short, long = loaded.prepare([Labelled("ada met bob", LABELS), Labelled(LONG, LABELS)])
    assert (short.truncated, long.truncated) == (False, True)
    assert long.tokens <= 150


def test_labels_of_a_second_encoder_are_read_once_and_counted_then(tmp_path: Path) -> None:
    loaded = adapter(write_gliner(tmp_path / "model", TINY["two encoders"]))
    empty, one, other = (Labelled(text, LABELS[:2]) for text in ("", "ada met bob", "ada met bob"))
    more = Labelled("ada met bob", LABELS)
    tokens = [each.tokens for each in loaded.prepare([empty, one, other, more])]
    alone = tokens[2]  # of the text and nothing else
    assert loaded.prepare([one])[0].tokens == tokens[1] == alone + sum(map(_label_tokens, LABELS[:2]))
    assert tokens[3] == alone + _label_tokens(LABELS[2])
    assert tokens[0] == 0
    ask(loaded, [more])
    assert [each.tokens for each in loaded.prepare([empty, one, other, more])] == [0, alone, alone, alone]


def _label_tokens(label: str) -> int:
    return len(label.replace(" ", "")) + 2  # the tokenizer of these has a token for each letter


def test_the_order_of_labels_means_nothing_to_a_second_encoder(tmp_path: Path) -> None:
    loaded = adapter(write_gliner(tmp_path / "model", TINY["two encoders"]))
    options = {"threshold": 0.3}
    one, other = ask(loaded, [Labelled(TEXTS[3], labels, options) for labels in (LABELS, LABELS[::-1])])
    assert one
    assert_same(one, [(e.text, e.label, e.score, e.start, e.end) for e in other])


def test_a_text_without_words_has_no_entities_and_no_tokens(loaded: GlinerAdapter) -> None:
    prepared = loaded.prepare([Labelled(" \n ", LABELS)])
    assert (prepared[0].tokens, prepared[0].truncated) == (0, False)
    assert loaded.run(prepared, threads=1)["entities"] == [()]


def test_options_of_the_model_are_the_defaults_of_its_requests(tmp_path: Path) -> None:
    folder = write_gliner(tmp_path / "model", TINY["deberta"])
    text = TEXTS[3]
    strict, lax = adapter(folder, threshold=1.0), adapter(folder, threshold=0.1)
    assert ask(strict, [Labelled(text, LABELS)]) == [()]
    assert ask(strict, [Labelled(text, LABELS, {"threshold": 0.1})]) == ask(lax, [Labelled(text, LABELS)]) != [()]


def test_neighbours_with_one_label_become_one() -> None:
    text = "New York City, New York"
    pieces = [(0, 3, "place"), (4, 8, "place"), (9, 13, "town"), (15, 18, "place"), (19, 23, "place")]
    entities = [Entity(text[a:b], label, 0.9 - 0.1 * at, a, b) for at, (a, b, label) in enumerate(pieces)]
    found = list(merged(entities, text))
    assert [(e.text, e.start, e.end) for e in found] == [("New York", 0, 8), ("City", 9, 13), ("New York", 15, 23)]
    assert [e.score for e in found] == [entities[0].score, entities[2].score, entities[3].score]
    assert list(merged([], text)) == []


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ((), "at least one label"),
        (("label",) * POSITIONS, f"the {POSITIONS} labels take .* reads {POSITIONS} at once"),
    ],
)
def test_no_labels_and_too_many_are_refused(tmp_path: Path, labels: tuple[str, ...], named: str) -> None:
    loaded = adapter(write_gliner(tmp_path / "model", TINY["bert"]))
    with pytest.raises(UnsupportedInputError, match=named):
        loaded.prepare([Labelled("ada", labels)])


def test_a_plain_text_is_refused(loaded: GlinerAdapter) -> None:
    with pytest.raises(UnsupportedInputError, match="extracts"):
        loaded.prepare(["ada"])


@pytest.mark.parametrize(
    ("damage", "error_class", "named"),
    [
        ({"span_mode": "conv_max"}, ErrorClass.DEPENDENCY, "span_mode 'conv_max'"),
        ({"encoder_config": None}, ErrorClass.DEPENDENCY, "has no encoder_config"),
        ({"labels_encoder": "org/other"}, ErrorClass.DEPENDENCY, "has no labels_encoder_config, as files of old"),
        ({"model_type": "gliner_uni_encoder_span_decoder"}, ErrorClass.DEPENDENCY, "span_decoder'; this adapter runs"),
        ({"relations_layer": "gcn"}, ErrorClass.DEPENDENCY, "relations_layer 'gcn'"),
        ({"fuse_layers": True}, ErrorClass.DEPENDENCY, "fuse_layers True"),
        ({"subtoken_pooling": "mean"}, ErrorClass.DEPENDENCY, "subtoken_pooling 'mean'"),
        ({"max_len": None}, ErrorClass.UNKNOWN, "not that of a GLiNER"),
        ({"ent_token": "[E]"}, ErrorClass.UNKNOWN, r"no token '\[E\]'"),
        ({"hidden_size": 16}, ErrorClass.UNKNOWN, r"'token_rep_layer\.projection\.weight' is missing"),
        ({"span_mode": "token_level"}, ErrorClass.UNKNOWN, r"'scorer\.proj_token\.weight' is missing"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    tmp_path: Path, damage: dict[str, Any], error_class: ErrorClass, named: str
) -> None:
    folder = write_gliner(tmp_path / "model", TINY["deberta"])
    file = folder / "gliner_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = write_gliner(tmp_path / "model", TINY["deberta"])
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LoadError, match="as a pickle only"):
        adapter(folder)


def test_a_layer_of_the_lstm_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_gliner(tmp_path / "model", TINY["deberta"])
    tensors = load_file(folder / "model.safetensors")
    del tensors["rnn.lstm.bias_hh_l0_reverse"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(LoadError, match=r"'rnn\.lstm\.bias_hh_l0_reverse' is missing"):
        adapter(folder)
