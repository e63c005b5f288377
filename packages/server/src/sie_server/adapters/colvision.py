"""Page images and queries as one vector for each token, to be compared token by token: ColPali and its kin.

A language model reads a page as image tokens among a few words, or a query, and every token's last state becomes a unit
vector. Texts are read as queries whoever asks: the models know no other way to read one. Published as ColPali and
ColQwen2 (Faysse et al. 2024, arXiv 2407.01449), in the layout of `ColPaliForRetrieval` and `ColQwen2ForRetrieval`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    Input,
    LoadError,
    ModelSpec,
    Outputs,
    Picture,
    Prepared,
    UnsupportedInputError,
)
from sie_server.adapters.shared import decoder
from sie_server.adapters.shared.checkpoint import Checkpoint, expect
from sie_server.adapters.shared.eyes import Eye, QwenEye, SiglipEye
from sie_server.adapters.shared.held import Held, check_dims, fitting, read_model
from sie_server.adapters.shared.linear import Dense
from sie_server.adapters.shared.pooling import unit
from sie_server.adapters.shared.prenorm import PackedPreNorm
from sie_server.adapters.shared.rope import AXES
from sie_server.adapters.shared.torch_use import precision, sent
from sie_server.adapters.shared.varlen import pack
from sie_server.adapters.shared.wording import Page, Reader, Wording
from sie_server.core.lifecycle import ErrorClass

# (the configuration, the tensors, the folder, the device, the dtype, how many tokens an image may have)
Open = Callable[[Mapping[str, Any], Checkpoint, Path, str, torch.dtype, int], Eye]


@dataclass(frozen=True, slots=True)
class Family:
    """A family: the model inside, its words, its eye, and what its language model's configuration leaves out.

    `has_axes`: positions count time, rows and columns.
    """

    inside: str
    wording: Wording
    open: Open
    text: Mapping[str, Any]
    has_axes: bool = False


def _siglip(
    config: Mapping[str, Any], checkpoint: Checkpoint, folder: Path, device: str, dtype: torch.dtype, most: int
) -> Eye:
    eye = SiglipEye(config.get("vision_config") or {}, checkpoint, folder, device, dtype)
    count = eye.side**2
    if count > most:
        raise LoadError(ErrorClass.UNKNOWN, f"an image has {count} tokens, max_sequence_length leaves room for {most}")
    return eye


def _qwen(
    config: Mapping[str, Any], checkpoint: Checkpoint, folder: Path, device: str, dtype: torch.dtype, most: int
) -> Eye:
    return QwenEye(config.get("vision_config") or {}, checkpoint, folder, device, dtype, most)


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "colpali": Family(
            "paligemma",
            Wording(
                image="<image>",
                page="<image>{bos}{prompt}\n",
                query="{bos}{prompt}",
                page_prompt="Describe the image.",
                query_prompt="Question: ",
                bos="<bos>",
                pad="<pad>",
            ),
            _siglip,
            {"model_type": "gemma", "head_dim": 256, "max_position_embeddings": 8192},
        ),
        "colqwen2": Family(
            "qwen2_vl",
            Wording(
                image="<|image_pad|>",
                page="{prompt}",
                query="{prompt}",
                page_prompt=(
                    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>"
                    "<|endoftext|>"
                ),
                query_prompt="Query: ",
                bos="",
                pad="<|endoftext|>",
            ),
            _qwen,
            {"model_type": "qwen2_vl_text", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5},
            has_axes=True,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    reader: Reader
    eye: Eye
    language: PackedPreNorm
    projection: Dense
    has_axes: bool


class ColVisionAdapter:
    """A vision language model whose every token becomes a unit vector; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._held = Held[Loaded]()
        self._device = "cpu"

    @property
    def capabilities(self) -> Capabilities:
        """Multivectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"multivector"}), pads=self._held.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", *FAMILIES)
        family = FAMILIES[str(config["model_type"])]
        whole = config.get("vlm_config") or {}
        text = _text_config(family, whole)
        dtype, shape = precision(self._spec.precision, device), decoder.read_shape(text)
        bare = {bare_name(name): tensor for name, tensor in tensors.items()}
        named = Checkpoint(bare, lambda name: name, device)
        length = min(self._spec.max_sequence_length or shape.positions, shape.positions)
        with fitting(device):
            language = PackedPreNorm(shape, decoder.read_weights(bare, text, shape, device, dtype), device)
            reader = Reader(folder, family.wording, length, language.vocabulary)
            eye = family.open(whole, named, folder, device, dtype, reader.room)
            weight, bias = (named.get(f"embedding_proj_layer.{part}", dtype=dtype) for part in ("weight", "bias"))
        check_dims(self._spec, "multivector", len(weight))
        self._device = device
        self._held.fill(Loaded(reader, eye, language, Dense(weight, bias), family.has_axes), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Token ids of texts as queries, cut at the model's length; of images the resized pixels too."""
        loaded = self._held.parts()
        queries = iter(loaded.reader.queries([each for each in inputs if isinstance(each, str)]))
        return [next(queries) if isinstance(each, str) else _page(loaded, each) for each in inputs]

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens an input has before it is cut; images are made to fit and never are."""
        loaded = self._held.parts()
        return loaded.reader.count(given) if isinstance(given, str) else _page(loaded, given).tokens

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """One float32 array of unit vectors [tokens, dims] for each input."""
        loaded = self._held.with_threads(threads)
        pages: list[Page] = [each.payload for each in batch]
        packed = pack([each.ids for each in pages], self._device)
        hidden = loaded.language.embed(packed.ids)
        images = [each.pixels for each in pages if each.pixels is not None]
        if images:
            hidden[sent(_image_places(pages), self._device)] = loaded.eye.see(images).to(hidden.dtype)
        if images and loaded.has_axes:
            packed = replace(packed, positions=sent(_positions(pages), self._device))
        hidden, lengths = loaded.language.encode_states(hidden, packed)
        vectors = unit(loaded.projection(hidden).float()).cpu().numpy()
        return {"multivector": np.split(vectors, np.cumsum(lengths)[:-1])}

    def unload(self) -> None:
        """Drop weights and buffers."""
        self._held.drop()


def bare_name(name: str) -> str:
    """A tensor's name without the names of what is around it: they differ between releases of transformers."""
    for around in ("vlm.", "model.", "language_model.", "model."):
        name = name.removeprefix(around)
    if name.startswith("vision_tower."):
        return f"vision_model.{name.removeprefix('vision_tower.').removeprefix('vision_model.')}"
    return name


def _text_config(family: Family, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's configuration, in a part of its own or, as older files have it, beside that of the eye."""
    expect(whole, "model_type", family.inside, default=family.inside)
    own, said = family.text["model_type"], whole.get("text_config") or whole
    expect(said, "model_type", own, family.inside, default=own)
    text = {**family.text, **said, "model_type": own}
    if family.has_axes:
        _need_axes(text)
        return text
    return {**text, "is_causal": False}  # PaliGemma reads its prompt both ways, and a prompt is all there is


def _need_axes(text: dict[str, Any]) -> None:
    where = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    text[where] = {"type": "mrope", "mrope_section": [16, 24, 24], **(text.get(where) or {})}


def _page(loaded: Loaded, given: Input) -> Prepared:
    if not isinstance(given, Picture):
        raise UnsupportedInputError("the model reads texts and images, one at a time")
    pixels = loaded.eye.read(given)
    return loaded.reader.page(pixels, loaded.eye.grid(pixels), has_axes=loaded.has_axes)


def _image_places(pages: Sequence[Page]) -> Array:
    """Where the image tokens of a batch are: int64 [image tokens]."""
    starts = np.cumsum([0, *(len(each.ids) for each in pages)])
    return np.concatenate(
        [start + each.start + np.arange(each.count) for start, each in zip(starts, pages, strict=False)]
    )


def _positions(pages: Sequence[Page]) -> Array:
    """Time, row and column of every token of a batch: int64 [tokens, 3]."""
    return np.concatenate(
        [
            np.repeat(np.arange(len(each.ids))[:, None], AXES, 1) if each.places is None else each.places
            for each in pages
        ]
    )
