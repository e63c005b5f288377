import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sie_server.adapters.base import (
    Classification,
    Input,
    Labelled,
    LabelledPicture,
    LoadError,
    ModelSpec,
    Passage,
    Picture,
    UnreadableImageError,
    UnsupportedInputError,
    WeightsSource,
)
from sie_server.adapters.donut import DonutAdapter, _outputs, _patches
from sie_server.adapters.shared.generation import Generated
from sie_server.core.lifecycle import ErrorClass
from tiny_donut import EOS, POSITIONS, donut_oracle, published_shape, write_donut
from tiny_vision import picture

CORD, VQA = "<s_cord-v2>", "<s_docvqa>"
IMAGES = [picture(64, 64), picture(90, 40, 1, "JPEG"), picture(33, 71, 2, mode="RGBA")]
QUESTION = "what is the total?"
PROMPT = f"{VQA}<s_question>{QUESTION}</s_question><s_answer>"


def adapter(folder: Path) -> DonutAdapter:
    loaded = DonutAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, {}))
    loaded.load("cpu")
    return loaded


def asked(image: bytes, said: str = "", **options: Any) -> LabelledPicture:
    return LabelledPicture(Picture(image), (), {"max_new_tokens": 14, **options}, said)


def rows(loaded: DonutAdapter, inputs: list[Input]) -> list[dict[str, Any]]:
    found: Any = loaded.run(loaded.prepare(inputs), threads=1)
    return [{kind: found[kind][at] for kind in found} for at in range(len(inputs))]


def written(loaded: DonutAdapter, given: Input) -> list[int]:
    """Prompt and text, without the token that ends it."""
    parts, [prepared] = loaded._loaded.parts(), loaded.prepare([given])
    page = prepared.payload
    work = parts.seq2seq.write([page.prompt], [page.length], lambda _: loaded._encode(parts, [page]))
    with torch.inference_mode():
        while True:
            try:
                next(work)
            except StopIteration as ended:
                return [*page.prompt, *ended.value[0].ids]


@pytest.fixture(scope="module")
def cord(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_donut(tmp_path_factory.mktemp("donut") / "cord", CORD, legacy_size=True)


@pytest.fixture(scope="module")
def vqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_donut(tmp_path_factory.mktemp("donut") / "vqa", VQA, asks=True)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("kind", "prompt", "said"), [("cord", CORD, ""), ("vqa", PROMPT, QUESTION)])
def test_tokens_and_fields_equal_those_of_transformers(
    request: pytest.FixtureRequest, kind: str, prompt: str, said: str, beams: int
) -> None:
    folder = request.getfixturevalue(kind)
    loaded, oracle = adapter(folder), donut_oracle(folder)
    for image in IMAGES:
        given = asked(image, said, num_beams=beams)
        theirs = oracle.ids(image, prompt, num_beams=beams, max_new_tokens=14)
        assert written(loaded, given) == [each for each in theirs if each != EOS]
        text = oracle.tokenizer.decode(theirs, skip_special_tokens=False).replace("</s>", "").replace("<pad>", "")
        [row] = rows(loaded, [given])
        assert row["data"].values == oracle.fields(text.replace(text[: text.index(">") + 1], "", 1).strip())


def test_documents_with_questions_of_any_length_share_a_batch(vqa: Path) -> None:
    loaded = adapter(vqa)
    inputs: list[Input] = [asked(image, said) for image in IMAGES for said in (QUESTION, "what?", "who is it?")]
    alone = [rows(loaded, [each])[0] for each in inputs]
    for row, wanted in zip(rows(loaded, inputs), alone, strict=True):
        assert row["data"] == wanted["data"]
        assert [each.text for each in row["entities"]] == [each.text for each in wanted["entities"]]


def test_a_question_is_part_of_the_data_and_no_finding(vqa: Path) -> None:
    [row] = rows(adapter(vqa), [asked(IMAGES[0], QUESTION)])
    assert row["data"].values["question"] == QUESTION
    assert QUESTION not in [each.text for each in row["entities"]]


def test_values_are_texts_and_a_kind_is_a_class_with_the_probability_of_all_its_tokens() -> None:
    found: list[dict[str, Any]] = [
        {"menu": [{"nm": "Tea"}, {"nm": "Cake"}], "total": "9"},
        {"class": "invoice"},
        {"question": "q"},
    ]
    texts = [Generated((1, 2), (-1.0, -3.0)), Generated((1, 2), (-0.5, -0.25)), Generated((), ())]
    outputs = _outputs(found, texts)
    score: Any = pytest.approx(math.exp(-2))
    chance: Any = pytest.approx(math.exp(-0.75))
    assert outputs["entities"] == [
        (Passage("Tea", "menu.nm", score), Passage("Cake", "menu.nm", score), Passage("9", "total", score)),
        (),
        (),
    ]
    assert outputs["classifications"] == [(), (Classification("invoice", chance),), ()]


def test_a_document_costs_its_patches_its_prompt_and_what_may_be_written(vqa: Path) -> None:
    [prepared] = adapter(vqa).prepare([asked(IMAGES[0], QUESTION, num_beams=2)])
    assert prepared.tokens == 4 * 3 + len(prepared.payload.prompt)
    assert prepared.written == 28


def test_published_sizes_have_so_many_patches(cord: Path) -> None:
    assert _patches(published_shape(), replace(adapter(cord)._loaded.parts().letterbox, size=(2560, 1920))) == 80 * 60


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("cord", Labelled("a cat"), "finds things in images"),
        ("cord", asked(IMAGES[0], task="<s_other>"), "options.task is '<s_other>', but the model was not trained"),
        ("cord", asked(IMAGES[0], QUESTION), "leave the instruction out"),
        ("vqa", asked(IMAGES[0]), "answers questions and was asked none"),
        ("cord", asked(IMAGES[0], max_new_tokens=41), f"can write {POSITIONS} tokens behind a prompt of 1"),
        ("vqa", asked(IMAGES[0], "what " * 20), "can write 0 tokens behind a prompt of"),
    ],
)
def test_what_it_cannot_read_is_refused(request: pytest.FixtureRequest, kind: str, given: Input, says: str) -> None:
    with pytest.raises(UnsupportedInputError, match=says):
        adapter(request.getfixturevalue(kind)).prepare([given])


def test_an_image_that_cannot_be_read_is_the_fault_of_its_item(cord: Path) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        adapter(cord).prepare([asked(b"no image")])


def copied(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_configuration_of_older_releases_says_how_to_write(cord: Path, tmp_path: Path) -> None:
    """Files of 2022 have all that a release knew in both halves, and no generation settings of their own."""
    (copied(cord, tmp_path) / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    start = adapter(cord)._loaded.parts().tokenizer.token_to_id(CORD)
    known: dict[str, Any] = {
        "max_length": 20,
        "num_beams": 1,
        "do_sample": False,
        "early_stopping": False,
        "length_penalty": 1.0,
    }
    known |= {
        "no_repeat_ngram_size": 0,
        "bad_words_ids": None,
        "torch_dtype": None,
        "pruned_heads": {},
        "use_bfloat16": False,
    }
    for half in ("encoder", "decoder"):
        config[half] = {**config[half], **known}
    config["encoder"]["path_norm"] = True
    config |= {"pad_token_id": 1, "decoder_start_token_id": start, "eos_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = asked(IMAGES[1])
    assert written(adapter(tmp_path), given) == written(adapter(cord), given)


def test_weights_that_lack_a_tensor_are_refused(cord: Path, tmp_path: Path) -> None:
    tensors = load_file(copied(cord, tmp_path) / "model.safetensors")
    gone = next(name for name in tensors if "encoder_attn.k_proj.weight" in name)
    save_file({name: each for name, each in tensors.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match=r"encoder_attn\.k_proj\.weight' is missing") as refused:
        adapter(tmp_path)
    assert refused.value.error_class is ErrorClass.UNKNOWN


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "donut"}, "this adapter runs 'vision-encoder-decoder' only"),
        ({"encoder": {"model_type": "vit"}}, "this adapter runs 'donut-swin' only"),
        ({"decoder": None}, "this adapter runs 'mbart' only"),
    ],
)
def test_another_model_is_refused(cord: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    config = json.loads((copied(cord, tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(LoadError, match=says):
        adapter(tmp_path)


def test_without_transformers_the_extra_that_brings_it_is_named(cord: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LoadError, match=r"install sie-server\[transformers\]"):
        adapter(cord)
