"""ColPali and its descendants equal transformers, texts and page images, whatever else is in their batch."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sie_protocol.arrays import Array
from sie_server.adapters.base import Input, LoadError, ModelSpec, Pair, Picture, UnsupportedInputError, WeightsSource
from sie_server.adapters.colvision import ColVisionAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_colengine import EngineOracle, as_of_now, write_colqwen25, write_colsmol, write_trained
from tiny_colvision import DIMS, MOST, PATCH, QWEN_PATCH, SIDE, Oracle, as_of_old, write_colpali, write_colqwen2
from tiny_loras import merged
from tiny_vision import picture

TEXTS = ["what is the revenue?", "", "two dogs  running\nfar away", "é" * 40]
IMAGES = [
    picture(32, 32),
    picture(90, 40, 1, "JPEG"),
    picture(33, 171, 2, mode="RGBA"),
    picture(7, 5, 3, mode="L"),
    picture(200, 300, 4),
]
OF_TRANSFORMERS: dict[str, Callable[[Path], Path]] = {"colpali": write_colpali, "colqwen2": write_colqwen2}
OF_COLPALI_ENGINE: dict[str, Callable[[Path], Path]] = {"colqwen2_5": write_colqwen25, "colsmol": write_colsmol}
WRITERS = OF_TRANSFORMERS | OF_COLPALI_ENGINE


@pytest.fixture(scope="module", params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("tiny") / request.param)


def oracle_of(folder: Path) -> Oracle | EngineOracle:
    of_transformers = json.loads((folder / "config.json").read_text())["model_type"] in OF_TRANSFORMERS
    return Oracle(folder) if of_transformers else EngineOracle(folder)


def adapter(folder: Path, length: int | None = None, dims: int = DIMS) -> ColVisionAdapter:
    source = WeightsSource(path=str(folder))
    loaded = ColVisionAdapter(ModelSpec("org/tiny", source, {"multivector": dims}, {}, length))
    loaded.load("cpu")
    return loaded


def vectors(loaded: ColVisionAdapter, inputs: list[Input]) -> list[Array]:
    return [np.asarray(each) for each in loaded.run(loaded.prepare(inputs), threads=1)["multivector"]]


def check(found: list[Array], expected: list[Array]) -> None:
    assert [each.shape for each in found] == [each.shape for each in expected]
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_texts_and_images_equal_transformers_in_one_batch(folder: Path) -> None:
    oracle, loaded = oracle_of(folder), adapter(folder)
    inputs: list[Input] = [TEXTS[0], *map(Picture, IMAGES), *TEXTS[1:]]
    texts = oracle.texts(TEXTS)
    check(vectors(loaded, inputs), [texts[0], *oracle.images(IMAGES), *texts[1:]])


@pytest.mark.parametrize("name", OF_COLPALI_ENGINE)
def test_loras_of_colpali_engine_are_computed_on_top_of_their_base(tmp_path: Path, name: str) -> None:
    base = OF_COLPALI_ENGINE[name](tmp_path / "base")
    trained = write_trained(base, tmp_path / "lora")
    oracle, bare, loaded = EngineOracle(merged(base, trained, tmp_path / "merged")), EngineOracle(base), adapter(base)
    lora = loaded.read_lora(str(trained))
    inputs: list[Input] = [TEXTS[0], *map(Picture, IMAGES[1:3])]
    batch = [replace(each, lora=own) for each in loaded.prepare(inputs) for own in (lora, None)]
    found = [np.asarray(each) for each in loaded.run(batch, threads=1)["multivector"]]
    expected = [*oracle.texts(TEXTS[:1]), *oracle.images(IMAGES[1:3])]
    plain = [*bare.texts(TEXTS[:1]), *bare.images(IMAGES[1:3])]
    check(found[::2], expected)
    check(found[1::2], plain)
    assert all(np.abs(own - other).max() > 0.05 for own, other in zip(expected, plain, strict=True))


@pytest.mark.parametrize("name", OF_COLPALI_ENGINE)
def test_folders_of_transformers_5_are_read_alike(tmp_path: Path, name: str) -> None:
    published = OF_COLPALI_ENGINE[name](tmp_path / "model")
    inputs: list[Input] = [*TEXTS, *map(Picture, IMAGES)]
    expected = vectors(adapter(published), inputs)
    check(vectors(adapter(as_of_now(published)), inputs), expected)


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_folders_of_transformers_4_are_read_alike(tmp_path: Path, name: str) -> None:
    now = OF_TRANSFORMERS[name](tmp_path / "model")
    inputs: list[Input] = [*TEXTS, *map(Picture, IMAGES)]
    expected = vectors(adapter(now), inputs)
    check(vectors(adapter(as_of_old(now)), inputs), expected)


@given(order=st.permutations(range(len(TEXTS) + len(IMAGES))))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_inputs_of_one_batch_do_not_disturb_each_other(folder: Path, order: list[int]) -> None:
    loaded = adapter(folder)
    inputs: list[Input] = [*TEXTS, *map(Picture, IMAGES)]
    alone = [vectors(loaded, [each])[0] for each in inputs]
    check(vectors(loaded, [inputs[at] for at in order]), [alone[at] for at in order])


def test_every_token_has_a_unit_vector_and_is_counted_before_it_is_queued(folder: Path) -> None:
    loaded = adapter(folder)
    inputs: list[Input] = [*TEXTS, *map(Picture, IMAGES)]
    prepared = loaded.prepare(inputs)
    found = vectors(loaded, inputs)
    assert [each.tokens for each in prepared] == [len(each) for each in found]
    assert [loaded.tokens_of(each) for each in inputs] == [each.tokens for each in prepared]
    assert not any(each.truncated for each in prepared)
    for each in found:
        assert each.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(each, axis=1), 1, atol=1e-5)


@given(width=st.integers(1, 400), height=st.integers(1, 400), mode=st.sampled_from(["RGB", "1"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_image_has_more_tokens_than_the_model_reads(folder: Path, width: int, height: int, mode: str) -> None:
    loaded = adapter(folder, 160)
    try:
        (prepared,) = loaded.prepare([Picture(picture(width, height, mode=mode))])
    except UnsupportedInputError:
        assert max(width, height) > 16 * min(width, height)
    else:
        assert prepared.tokens <= 160


def test_a_query_that_is_cut_keeps_the_words_around_it(folder: Path) -> None:
    loaded = adapter(folder, 150)
    (short, long) = loaded.prepare(["cat ", "cat " * 90])
    assert (short.truncated, long.truncated) == (False, True)
    assert long.tokens == 150
    assert loaded.tokens_of("cat " * 90) == short.tokens + 4 * 89
    ids = [each.payload.ids for each in loaded.prepare(["a", "b"])]
    tail = len(ids[0]) - 1 - int(np.flatnonzero(ids[0] != ids[1])[-1])
    np.testing.assert_array_equal(long.payload.ids[-tail:], short.payload.ids[-tail:])
    kept = long.payload.ids[:-tail]
    np.testing.assert_array_equal(kept, adapter(folder).prepare(["cat " * 90])[0].payload.ids[: len(kept)])


def test_a_text_that_names_the_image_token_is_a_text(folder: Path) -> None:
    loaded = adapter(folder)
    texts = ["a <image> b", "a <|image_pad|> b"]
    inputs: list[Input] = [*texts, Picture(IMAGES[0])]
    check(vectors(loaded, inputs), [vectors(loaded, [each])[0] for each in inputs])


def test_what_is_no_text_or_image_is_refused(folder: Path) -> None:
    loaded = adapter(folder)
    with pytest.raises(UnsupportedInputError, match="one at a time"):
        loaded.prepare([Pair("a", "b")])
    with pytest.raises(UnsupportedInputError, match="send one of: PNG, JPEG"):
        loaded.prepare([Picture(b"<svg/>")])
    with pytest.raises(UnsupportedInputError, match="the limit is 40000000"):
        loaded.prepare([Picture(picture(10_000, 10_000, mode="1"))])


@pytest.mark.parametrize("write", [write_colqwen2, write_colqwen25])
def test_an_image_that_cannot_keep_its_shape_is_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    loaded = adapter(write(tmp_path / "model"))
    with pytest.raises(UnsupportedInputError, match="1000 x 4 pixels is too long and narrow"):
        loaded.prepare([Picture(picture(1000, 4))])


@pytest.mark.parametrize("write", [write_colqwen2, write_colqwen25])
def test_larger_images_are_read_at_a_lower_resolution_where_the_model_reads_less(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    folder = write(tmp_path / "model", most=64 * MOST)
    words = adapter(folder).tokens_of(Picture(picture(8, 8))) - tokens(folder, 8, 8)
    (prepared,) = adapter(folder, words + 20).prepare([Picture(picture(300, 300))])
    assert prepared.tokens == words + 16


def tokens(folder: Path, width: int, height: int) -> int:
    (prepared,) = adapter(folder).prepare([Picture(picture(width, height))])
    return int(np.prod(prepared.payload.pixels.shape[:2])) // (2 * QWEN_PATCH) ** 2


@pytest.mark.parametrize(
    ("change", "length", "error_class", "says"),
    [
        ({"model_type": "paligemma"}, None, ErrorClass.DEPENDENCY, "model_type 'paligemma'"),
        ({"vlm_config": {"model_type": "llava"}}, None, ErrorClass.DEPENDENCY, "model_type 'llava'"),
        ({}, 12, ErrorClass.UNKNOWN, "12 tokens leave no room"),
    ],
)
def test_models_that_are_not_computed_here_are_refused(
    tmp_path: Path, folder: Path, change: dict[str, Any], length: int | None, error_class: ErrorClass, says: str
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | change
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match=says) as refused:
        adapter(tmp_path, length)
    assert refused.value.error_class is error_class


def test_a_catalogue_that_promises_other_vectors_is_refused(folder: Path) -> None:
    with pytest.raises(LoadError, match=f"{DIMS} components, the catalogue says 7"):
        adapter(folder, dims=7)


def test_a_preprocessor_for_another_size_is_refused(tmp_path: Path) -> None:
    folder = as_of_old(write_colpali(tmp_path / "model"))
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": {"height": 16, "width": 16}}))
    with pytest.raises(LoadError, match=f"the model reads {SIDE} x {SIDE}"):
        adapter(folder)
    assert SIDE % PATCH == 0


@pytest.mark.parametrize("write", [write_colpali, write_colsmol])
def test_a_model_that_may_not_read_its_own_pages_is_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    folder = write(tmp_path / "model")
    square = adapter(folder).tokens_of(Picture(picture(50, 50)))
    assert adapter(folder, square).prepare([Picture(picture(50, 50))])[0].tokens == square
    with pytest.raises(LoadError, match=f"a page has up to {square} tokens, but max_sequence_length is {square - 1}"):
        adapter(folder, square - 1)


def test_tiles_of_another_size_than_the_model_s_are_refused(tmp_path: Path) -> None:
    folder = write_colsmol(tmp_path / "model")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_image_size": {"longest_edge": 8}}))
    with pytest.raises(LoadError, match="the model reads 16 x 16"):
        adapter(folder)


@pytest.mark.parametrize(
    ("change", "error_class", "says"),
    [
        ({"scale_factor": 3}, ErrorClass.UNKNOWN, "4 patches a side, of which scale_factor 3 cannot be made"),
        ({"scale_factor": "two"}, ErrorClass.UNKNOWN, "not that of a vision model"),
        ({"mask_non_image_embeddings": True}, ErrorClass.DEPENDENCY, "mask_non_image_embeddings True"),
        ({"text_config": {"model_type": "mistral"}}, ErrorClass.DEPENDENCY, "model_type 'mistral'"),
    ],
)
def test_varieties_of_idefics3_that_are_not_computed_here_are_refused(
    tmp_path: Path, change: dict[str, Any], error_class: ErrorClass, says: str
) -> None:
    folder = write_colsmol(tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(LoadError, match=says) as refused:
        adapter(folder)
    assert refused.value.error_class is error_class


@pytest.mark.parametrize("name", OF_COLPALI_ENGINE)
def test_a_chat_model_without_a_projection_is_refused(tmp_path: Path, name: str) -> None:
    folder = OF_COLPALI_ENGINE[name](tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    projection = {"custom_text_proj.weight", "linear.weight"}
    save_file({key: tensor for key, tensor in tensors.items() if key not in projection}, folder / "bare")
    (folder / "bare").replace(folder / "model.safetensors")
    with pytest.raises(LoadError, match="weight' is missing"):
        adapter(folder)


def test_a_lora_of_what_looks_at_images_is_refused(tmp_path: Path) -> None:
    base = write_colqwen25(tmp_path / "base")
    trained = write_trained(base, tmp_path / "lora")
    name = "base_model.model.visual.blocks.0.mlp.gate_proj.lora_{}.weight"
    more = {name.format("A"): torch.ones(4, 32), name.format("B"): torch.ones(40, 4)}
    save_file(load_file(trained / "adapter_model.safetensors") | more, trained / "more")
    (trained / "more").replace(trained / "adapter_model.safetensors")
    with pytest.raises(LoadError, match=r"visual\.blocks\.0\.mlp\.gate_proj") as refused:
        adapter(base).read_lora(str(trained))
    assert refused.value.error_class is ErrorClass.DEPENDENCY
