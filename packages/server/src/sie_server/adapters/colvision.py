"""Page images and queries as one vector for each token, to be compared token by token: ColPali and its kin.

A language model reads a page as image tokens among a few words, or a query, and every token's last state becomes a unit
vector. Texts are read as queries whoever asks: the models know no other way to read one. Published as ColPali and its
descendants (Faysse et al. 2024, arXiv 2407.01449), in the layout of `ColPaliForRetrieval` and `ColQwen2ForRetrieval` of
transformers, or in that of `ColQwen2_5` and `ColIdefics3` of colpali-engine, whose models are LoRAs on top of a base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, Outputs, Picture, Prepared, UnsupportedInputError
from sie_server.adapters.shared import decoder
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.checkpoint import Checkpoint, expect
from sie_server.adapters.shared.linear import Dense
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.lora import Lora, Place, Targets, Tensors, loras_of, mix, read_lora
from sie_server.adapters.shared.page_families import FAMILIES, Family
from sie_server.adapters.shared.page_prompts import Page, Reader
from sie_server.adapters.shared.pooling import normalized
from sie_server.adapters.shared.prenorm import PackedPreNorm
from sie_server.adapters.shared.rope import AXES
from sie_server.adapters.shared.torch_use import precision, to_device
from sie_server.adapters.shared.varlen import pack
from sie_server.adapters.shared.vision_encoders import VisionEncoder

HEAD: Final = -1  # the block of the projection, for LoRAs: it is none
PROJECTION: Final = "projection"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    reader: Reader
    vision: VisionEncoder
    language: PackedPreNorm
    projection: Dense
    targets: Targets
    has_axes: bool


class ColVisionAdapter(ModelAdapter[Loaded]):
    """A vision language model whose every token becomes a unit vector; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Multivectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"multivector"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", *FAMILIES)
        family = FAMILIES[str(config["model_type"])]
        whole = config.get("vlm_config") or config
        expect(whole, "mask_non_image_embeddings", False, None)
        text = _text_config(family, whole)
        dtype, shape = precision(self._spec.precision, device), decoder.read_shape(text)
        bare = _renamed(tensors)
        named = Checkpoint(bare, lambda name: name, device)
        length = min(self._spec.max_sequence_length or shape.positions, shape.positions)
        with loading_onto(device):
            language = PackedPreNorm(shape, decoder.read_weights(bare, text, shape, device, dtype), device)
            reader = Reader(folder, family.templates, length, language.vocabulary)
            vision = family.open(whole, named, folder, device, dtype, reader.room)
            weight = named.get(f"{family.projection}.weight", dtype=dtype)
            bias = named.get(f"{family.projection}.bias", dtype=dtype)
        if vision.largest is not None:
            reader.check(vision.largest)
        check_dims(self._spec, "multivector", len(weight))
        places = {**decoder.places(text, shape), family.projection: Place(HEAD, PROJECTION, 0, *weight.shape)}
        targets = Targets(places, _renamed, device, dtype)
        self._loaded.fill(Loaded(reader, vision, language, Dense(weight, bias), targets, family.has_axes), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Token ids of texts as queries, cut at the model's length; of images the resized pixels too."""
        loaded = self._loaded.parts()
        queries = iter(loaded.reader.queries([each for each in inputs if isinstance(each, str)]))
        return [next(queries) if isinstance(each, str) else _page(loaded, each) for each in inputs]

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens an input has before it is cut; images are made to fit and never are."""
        loaded = self._loaded.parts()
        return loaded.reader.count(given) if isinstance(given, str) else _page(loaded, given).tokens

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """One float32 array of unit vectors [tokens, dims] for each input."""
        loaded = self._loaded.with_threads(threads)
        pages: list[Page] = [each.payload for each in batch]
        packed = pack([each.ids for each in pages], self._loaded.device)
        hidden = loaded.language.embed(packed.ids)
        images = [each.pixels for each in pages if each.pixels is not None]
        if images:
            hidden[to_device(_image_places(pages), self._loaded.device)] = loaded.vision.encode(images).to(hidden.dtype)
        if images and loaded.has_axes:
            packed = replace(packed, positions=to_device(_positions(pages), self._loaded.device))
        loras = loras_of(batch)
        hidden, lengths = loaded.language.encode_states(hidden, packed, loras=loras)
        projected, mixed = loaded.projection(hidden), mix(loras, lengths, self._loaded.device)
        if mixed is not None:
            mixed.add(HEAD, PROJECTION, hidden, projected)
        return {"multivector": np.split(normalized(projected.float()).cpu().numpy(), np.cumsum(lengths)[:-1])}

    def read_lora(self, folder: str) -> Lora:
        """A LoRA for the language model and the projection, as colpali-engine trains them."""
        return read_lora(folder, self._loaded.parts().targets)


def bare_name(name: str) -> str:
    """A tensor's name without the names of what is around it: they differ between releases of transformers."""
    for around in ("vlm.", "model.", "language_model.", "text_model.", "model."):
        name = name.removeprefix(around)
    if name.startswith("vision_tower."):
        return f"vision_model.{name.removeprefix('vision_tower.').removeprefix('vision_model.')}"
    return name


def _renamed(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {bare_name(name): tensor for name, tensor in tensors.items()}


def _text_config(family: Family, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's configuration, in a part of its own or, as older files have it, beside that of vision."""
    expect(whole, "model_type", family.inside, default=family.inside)
    own, said = family.text["model_type"], whole.get("text_config") or whole
    expect(said, "model_type", own, family.inside, default=own)
    text = {**family.text, **said, "model_type": own}
    if family.has_axes:
        _need_axes(text)
    return text


def _need_axes(text: dict[str, Any]) -> None:
    where = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    text[where] = {"type": "mrope", "mrope_section": [16, 24, 24], **(text.get(where) or {})}


def _page(loaded: Loaded, given: Input) -> Prepared:
    if not isinstance(given, Picture):
        raise UnsupportedInputError("the model reads texts and images, one at a time")
    return loaded.reader.page(loaded.vision.read(given), has_axes=loaded.has_axes)


def _image_places(pages: Sequence[Page]) -> Array:
    """Where the image tokens of a batch are: int64 [image tokens]."""
    starts = np.cumsum([0, *(len(each.ids) for each in pages)])
    return np.concatenate([start + each.image for start, each in zip(starts, pages, strict=False)])


def _positions(pages: Sequence[Page]) -> Array:
    """Time, row and column of every token of a batch: int64 [tokens, 3]."""
    return np.concatenate(
        [
            np.repeat(np.arange(len(each.ids))[:, None], AXES, 1) if each.places is None else each.places
            for each in pages
        ]
    )
