import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sie_server.adapters.base import (
    Input,
    Labelled,
    LabelledPicture,
    LoadError,
    ModelSpec,
    Picture,
    Prepared,
    UnreadableImageError,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.florence2 import Florence2Adapter, _places
from sie_server.adapters.shared.florence_output import TASKS
from sie_server.adapters.shared.generation import Generated, Length, probability
from sie_server.core.lifecycle import ErrorClass
from tiny_florence2 import (
    EOS,
    PLACES,
    POSITIONS,
    FlorenceOracle,
    florence_oracle,
    published_shape,
    write_florence2,
    write_published,
)
from tiny_vision import picture

IMAGES = [picture(64, 64), picture(90, 40, 1, "JPEG"), picture(33, 71, 2, mode="RGBA")]
SIZES = [(64, 64), (90, 40), (33, 71)]
ASKED = [("<OCR>", ""), ("<OCR_WITH_REGION>", ""), ("<OD>", ""), ("<REGION_TO_OCR>", "<loc_1><loc_2><loc_3><loc_400>")]
ASKED += [("<CAPTION_TO_PHRASE_GROUNDING>", "a cat and a dog"), ("<OPEN_VOCABULARY_DETECTION>", "cat")]


def adapter(folder: Path, **options: Any) -> Florence2Adapter:
    loaded = Florence2Adapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, options))
    loaded.load("cpu")
    return loaded


def asked(image: bytes, task: str = "<OD>", said: str = "", **options: Any) -> LabelledPicture:
    return LabelledPicture(Picture(image), (), {"task": task, "max_new_tokens": 16, **options}, said)


def rows(loaded: Florence2Adapter, inputs: list[Input]) -> list[dict[str, Any]]:
    found: Any = loaded.run(loaded.prepare(inputs), threads=1)
    return [{kind: found[kind][at] for kind in found} for at in range(len(inputs))]


def written(loaded: Florence2Adapter, inputs: list[Input]) -> list[Generated]:
    """What the model writes, before anything is made of it."""
    work = loaded._written(loaded._loaded.parts(), [each.payload for each in loaded.prepare(inputs)])
    with torch.inference_mode():
        while True:
            try:
                next(work)
            except StopIteration as ended:
                texts: list[Generated] = ended.value
                return texts


def until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS)] if EOS in ids else ids


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_florence2(tmp_path_factory.mktemp("florence2") / "native")


@pytest.fixture(scope="module")
def model(native: Path) -> Florence2Adapter:
    return adapter(native)


@pytest.fixture(scope="module")
def published(native: Path) -> Path:
    return write_published(native, native.parent / "published")


@pytest.fixture(scope="module")
def oracle(native: Path) -> FlorenceOracle:
    return florence_oracle(native)


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize(("task", "said"), ASKED)
def test_tokens_equal_those_of_transformers(
    model: Florence2Adapter, oracle: FlorenceOracle, task: str, said: str, beams: int
) -> None:
    for image in IMAGES:
        [text] = written(model, [asked(image, task, said, num_beams=beams)])
        theirs = oracle.ids(image, oracle.prompt(task, said), num_beams=beams, max_new_tokens=16)
        assert list(text.ids) == until_end(theirs)


def test_logprobs_are_the_logarithms_of_probabilities_in_transformers(
    model: Florence2Adapter, oracle: FlorenceOracle
) -> None:
    [text] = written(model, [asked(IMAGES[1])])
    wanted = oracle.logprobs(IMAGES[1], oracle.prompt("<OD>"), max_new_tokens=16)
    assert list(text.logprobs) == pytest.approx(wanted[: len(text.ids)], abs=1e-5)


@pytest.mark.parametrize(("task", "said"), ASKED)
def test_an_answer_equals_that_of_transformers_processor(
    model: Florence2Adapter, oracle: FlorenceOracle, task: str, said: str
) -> None:
    for image, size in zip(IMAGES, SIZES, strict=True):
        [row] = rows(model, [asked(image, task, said, max_new_tokens=40)])
        ids = oracle.ids(image, oracle.prompt(task, said), max_new_tokens=40)
        text = oracle.tokenizer.decode(ids, skip_special_tokens=False)
        assert_alike(row["data"].values[task], oracle.answer(text, task, size))


def assert_alike(found: Any, wanted: Any) -> None:
    """Equal, and numbers to 1e-5."""
    if isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for key in wanted:
            assert_alike(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    else:
        assert found == (pytest.approx(wanted, abs=1.1e-5) if isinstance(wanted, float) else wanted)


@pytest.mark.parametrize(("task", "said"), ASKED)
@pytest.mark.parametrize("beams", [1, 3])
def test_the_published_layout_is_the_same_model(
    published: Path, oracle: FlorenceOracle, task: str, said: str, beams: int
) -> None:
    loaded = adapter(published)
    extra = list(range(loaded._loaded.parts().tokenizer.get_vocab_size(), oracle.model.config.text_config.vocab_size))
    for image in IMAGES:
        [text] = written(loaded, [asked(image, task, said, num_beams=beams)])
        prompt = oracle.prompt(task, said)
        theirs = oracle.ids(image, prompt, num_beams=beams, max_new_tokens=16, suppress_tokens=extra)
        assert list(text.ids) == until_end(theirs)


@given(order=st.permutations(range(len(IMAGES) * 4)))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_inputs_of_any_task_share_a_batch_without_disturbing_each_other(
    model: Florence2Adapter, order: list[int]
) -> None:
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("<OD>", "", {}),
        ("<OD>", "", {"num_beams": 2}),
        ("<CAPTION_TO_PHRASE_GROUNDING>", "a cat sat on a mat", {}),
        ("<OCR>", "", {"max_new_tokens": 9}),
    ]
    inputs: list[Input] = [asked(image, *kind[:2], **kind[2]) for image in IMAGES for kind in kinds]
    alone = [written(model, [each])[0] for each in inputs]
    for text, wanted in zip(written(model, [inputs[at] for at in order]), [alone[at] for at in order], strict=True):
        assert text.ids == wanted.ids
        assert list(text.logprobs) == pytest.approx(list(wanted.logprobs), abs=1e-4)


def test_prompts_equal_those_of_the_processor(oracle: FlorenceOracle) -> None:
    for name, task in TASKS.items():
        said = " a red cat " if task.takes_input else ""
        assert task.prompt.replace("{}", said.strip()) == oracle.prompt(name, said)


def test_a_task_of_its_own_is_read_as_it_is_with_the_question_behind_it(native: Path, oracle: FlorenceOracle) -> None:
    loaded = adapter(native, tasks=["<DocVQA>"])
    [row] = rows(loaded, [asked(IMAGES[0], "<DocVQA>", "what is it?")])
    ids = oracle.ids(IMAGES[0], "<DocVQA>what is it?", max_new_tokens=16)
    text = oracle.tokenizer.decode(ids, skip_special_tokens=False)
    assert row["data"].values == {"<DocVQA>": oracle.answer(text, "<DocVQA>", SIZES[0])}
    [passage] = row["entities"]
    assert (passage.text, passage.label, passage.bbox) == (row["data"].values["<DocVQA>"], "answer", None)


def test_steps_pause_after_every_token_and_come_to_the_same(model: Florence2Adapter) -> None:
    prepared = model.prepare([asked(IMAGES[0])])
    steps, count = model.steps(prepared, 1), 1
    next(steps)
    outputs = None
    while outputs is None:
        assert torch.is_inference_mode_enabled() is False  # what pauses leaves nothing behind
        try:
            steps.send(1)
            count += 1
        except StopIteration as ended:
            outputs = ended.value
    assert count == 16  # the image, and all tokens but the last
    assert outputs == model.run(prepared, 1)


def test_an_image_costs_its_places_its_sentence_and_what_may_be_written(model: Florence2Adapter) -> None:
    one, two = model.prepare([asked(IMAGES[0]), asked(IMAGES[0], num_beams=3)])
    assert one.tokens == two.tokens == PLACES + len(one.payload.ids)
    assert (one.written, two.written, two.weight) == (16, 48, two.tokens + 48)
    [default] = model.prepare([LabelledPicture(Picture(IMAGES[0]))])
    assert (default.payload.task, default.payload.length) == ("<OCR_WITH_REGION>", Length(POSITIONS, 1))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Labelled("a cat"), "finds things in images"),
        (asked(IMAGES[0], "<CAT>"), "options.task is '<CAT>'; it knows: <OCR>, "),
        (asked(IMAGES[0], "<OPEN_VOCABULARY_DETECTION>"), "needs something to be said"),
        (asked(IMAGES[0], "<OD>", "a cat"), "reads nothing beside the image"),
        (asked(IMAGES[0], "<OPEN_VOCABULARY_DETECTION>", "c" * 90), "have 111 tokens, the limit is 75"),
        (asked(IMAGES[0], max_new_tokens=POSITIONS + 1), "max_new_tokens is 81, but the model can write 80 tokens"),
    ],
)
def test_what_it_cannot_read_is_refused(model: Florence2Adapter, given: Input, says: str) -> None:
    with pytest.raises(UnsupportedInputError, match=says):
        model.prepare([given])


def test_an_image_that_cannot_be_read_is_the_fault_of_its_item(model: Florence2Adapter) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        model.prepare([asked(b"no image")])


def copied(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_words_of_a_published_model_may_have_any_of_their_names(published: Path, tmp_path: Path) -> None:
    tensors = load_file(copied(published, tmp_path) / "model.safetensors")
    words = tensors.pop("language_model.model.encoder.embed_tokens.weight")
    save_file({**tensors, "language_model.lm_head.weight": words}, tmp_path / "model.safetensors")
    inputs: list[Input] = [asked(IMAGES[0])]
    assert written(adapter(tmp_path), inputs) == written(adapter(published), inputs)


@pytest.mark.parametrize("gone", ["image_projection", "vision_tower.blocks.2.0.channel_block.ffn.fn.net.fc1.weight"])
def test_a_published_model_that_lacks_a_tensor_is_refused(published: Path, tmp_path: Path, gone: str) -> None:
    tensors = load_file(copied(published, tmp_path) / "model.safetensors")
    save_file({name: each for name, each in tensors.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match=r"is missing or has another shape") as refused:
        adapter(tmp_path)
    assert refused.value.error_class is ErrorClass.UNKNOWN


def test_a_bias_of_words_is_refused(published: Path, tmp_path: Path) -> None:
    tensors = load_file(copied(published, tmp_path) / "model.safetensors")
    tensors["language_model.final_logits_bias"][0, 5] = 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match="final_logits_bias' is not zero"):
        adapter(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "florence"}, "this adapter runs 'florence2' only"),
        ({"text_config": {"vocab_size": 900}}, "tokens, places from 266 to 1265; the model has 900"),
        ({"text_config": {"eos_token_id": None}}, "no eos_token_id"),
        ({"text_config": {"add_final_layer_norm": True}}, "add_final_layer_norm True"),
        ({"vision_config": {"image_feature_source": ["last_frame"]}}, "image_feature_source"),
        ({"vision_config": {"image_pos_embed": {"type": "sine"}}}, "type 'sine'"),
    ],
)
def test_another_model_is_refused(published: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    config = json.loads((copied(published, tmp_path) / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match=says):
        adapter(tmp_path)


def test_without_transformers_the_extra_that_brings_it_is_named(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LoadError, match=r"install sie-server\[transformers\]") as refused:
        adapter(native)
    assert refused.value.error_class is ErrorClass.DEPENDENCY


@pytest.mark.parametrize("penalty", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("repeats", [0, 2])
def test_beams_follow_the_rules_of_transformers(
    native: Path, oracle: FlorenceOracle, early: bool | str, penalty: float, repeats: int
) -> None:
    loaded = adapter(native)
    parts = loaded._loaded.parts()
    ends = (EOS, 318, 568)  # words that this model likes, so that beams end at different times
    generation = replace(parts.seq2seq.config, ends=ends, early_stopping=early, length_penalty=penalty, repeats=repeats)
    loaded._loaded.fill(replace(parts, seq2seq=replace(parts.seq2seq, config=generation)), "cpu")
    for image in IMAGES:
        for beams in (2, 4):
            [text] = written(loaded, [asked(image, num_beams=beams, max_new_tokens=12)])
            theirs = oracle.ids(
                image,
                oracle.prompt("<OD>"),
                num_beams=beams,
                max_new_tokens=12,
                eos_token_id=list(ends),
                early_stopping=early,
                length_penalty=penalty,
                no_repeat_ngram_size=repeats,
            )
            end = next((at for at, each in enumerate(theirs) if each in ends), len(theirs))
            assert list(text.ids) == theirs[:end]


def test_published_sizes_are_read_as_577_places(native: Path) -> None:
    config = published_shape()
    how = replace(adapter(native)._loaded.parts().preprocessing, size=(768, 768))
    assert _places(config, how) == 577
    with pytest.raises(LoadError, match="no positions for"):
        _places(config, replace(how, size=(1632, 768)))


def test_logprobs_that_are_no_numbers_are_not_hidden() -> None:
    assert probability([]) == 0
    assert probability([-1.0, -3.0]) == pytest.approx(0.1353352832)
    assert probability([-1.0, -3.0], whole=True) == pytest.approx(0.0183156389)
    assert probability([1e-9]) == 1
    assert probability([float("nan"), -1.0]) != probability([float("nan"), -1.0])


def test_prepared_inputs_of_other_models_have_nothing_to_write() -> None:
    assert Prepared(7, truncated=False, payload=None).weight == 7
