from pathlib import Path
from typing import Any, cast

import pytest

from sie_server.adapters.base import Entity, Labelled, LoadError, ModelSpec, WeightsSource
from sie_server.adapters.token_classifier import TokenClassifierAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_classifiers import BIO, FAMILIES, OF_TEXTS_ONLY, POSITIONS, change_config, pipeline_entities, write_classifier

TEXTS = [
    "the cat sat on a mat, and saw Two dogs running far away.",
    "cat",
    "unheard-of Ünïcode 😀 running runningning",
    "a. ,",
]
PLAIN = ("PER", "LOC", "O", "MISC")


def adapter(folder: Path, max_length: int | None = None) -> TokenClassifierAdapter:
    built = TokenClassifierAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}, max_length))
    built.load("cpu")
    return built


def find(loaded: TokenClassifierAdapter, texts: list[str], **options: Any) -> list[tuple[Entity, ...]]:
    prepared = loaded.prepare([Labelled(text, (), options) for text in texts])
    return cast("list[tuple[Entity, ...]]", loaded.run(prepared, threads=1)["entities"])


def entities(
    loaded: TokenClassifierAdapter, texts: list[str], strategy: str
) -> list[list[tuple[str, float, int, int]]]:
    found = find(loaded, texts, aggregation_strategy=strategy)
    return [[(each.label, each.score, each.start, each.end) for each in entry] for entry in found]


def assert_same(
    found: list[list[tuple[str, float, int, int]]], expected: list[list[tuple[str, float, int, int]]]
) -> None:
    assert sum(map(len, expected)) > 2  # or equality would say little
    for one, other in zip(found, expected, strict=True):
        assert [(label, start, end) for label, _, start, end in one] == [
            (label, start, end) for label, _, start, end in other
        ]
        assert [score for _, score, _, _ in one] == pytest.approx([score for _, score, _, _ in other], abs=1e-5)


@pytest.mark.parametrize("strategy", ["first", "average", "max", "simple"])
@pytest.mark.parametrize(("seed", "labels"), [(0, BIO), (1, PLAIN)])
def test_entities_equal_those_of_the_pipeline_of_transformers(
    tmp_path: Path, seed: int, labels: tuple[str, ...], strategy: str
) -> None:
    folder = write_classifier(tmp_path / "model", "bert", labels, of_tokens=True, seed=seed)
    assert_same(entities(adapter(folder), TEXTS, strategy), pipeline_entities(folder, "bert", TEXTS, strategy))


@pytest.mark.parametrize("family", [each for each in FAMILIES if each not in {"bert", *OF_TEXTS_ONLY}])
def test_every_family_gives_the_entities_of_transformers(tmp_path: Path, family: str) -> None:
    folder = write_classifier(tmp_path / "model", family, BIO, of_tokens=True)
    assert_same(entities(adapter(folder), TEXTS, "simple"), pipeline_entities(folder, family, TEXTS, "simple"))


def test_a_text_longer_than_the_model_is_read_to_its_end(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "bert", PLAIN, of_tokens=True)
    loaded = adapter(folder)
    text = " ".join(["the cat saw two dogs"] * 60)
    [prepared] = loaded.prepare([Labelled(text)])
    assert (prepared.tokens > 300, prepared.truncated) == (True, False)
    assert all(len(each) <= POSITIONS for each in prepared.payload.windowed.sequences)
    [found] = find(loaded, [text])
    assert all(text[each.start : each.end] == each.text for each in found)
    assert found[-1].end > len(text) - 40


def test_weights_with_other_labels_than_the_configuration_are_refused(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "bert", BIO, of_tokens=True)
    change_config(folder, id2label={"0": "O", "1": "X"})
    with pytest.raises(LoadError, match=r"the weights have 5 labels, config\.json names 2") as refused:
        adapter(folder)
    assert refused.value.error_class is ErrorClass.UNKNOWN


def test_an_encoder_without_a_head_names_what_is_missing(tmp_path: Path) -> None:
    from tiny_bert import write_checkpoint  # noqa: PLC0415 - only here

    folder = change_config(write_checkpoint(tmp_path / "model"), id2label={"0": "O"})
    with pytest.raises(LoadError, match=r"'classifier\.weight' is missing"):
        adapter(folder)
