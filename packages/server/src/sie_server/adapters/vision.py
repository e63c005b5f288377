"""Texts and images as vectors of one space: CLIP and SigLIP.

Options: `normalize` (default true); for SigLIP, whose texts are always padded to the model's length, `pad_token` (the
token they are padded with), and `clean` (the text is lower-cased: "lower", or loses its punctuation too: "strip").
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers
from sie_server.adapters.shared.dual_encoder import DEFAULTS, Clip, DualEncoder, Siglip
from sie_server.adapters.shared.images import Preprocessing, read_preprocessing
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.patches import shifted
from sie_server.adapters.shared.pooling import normalized
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision, to_device
from sie_server.core.lifecycle import ErrorClass

Build = Callable[[Mapping[str, Any], Checkpoint, str, torch.dtype], DualEncoder]
MODELS: Final[Mapping[str, Build]] = MappingProxyType({"clip": Clip, "siglip": Siglip})
_NO_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `patches` of each image: all are of one size."""

    texts: "_Texts"
    preprocessing: Preprocessing
    dual: DualEncoder
    patches: int


class VisionAdapter(ModelAdapter[Loaded]):
    """Two towers; float32 on a CPU. `payload` is an int64 array of token ids, or uint8 pixels [height, width, 3]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._normalize = bool(spec.options.get("normalize", True))

    @property
    def capabilities(self) -> Capabilities:
        """Dense vectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"dense"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", *MODELS)
        kind = str(config["model_type"])
        dtype = precision(self._spec.precision, device)
        checkpoint = Checkpoint(tensors, lambda name: name, device)
        with loading_onto(device):
            dual = MODELS[kind](config, checkpoint, device, dtype)
        check_dims(self._spec, "dense", dual.width)
        text, vision = (DEFAULTS[kind][part] | config.get(part, {}) for part in ("text_config", "vision_config"))
        patches = read_numbers("vision model", lambda: (int(vision["image_size"]) // int(vision["patch_size"])) ** 2)
        positions = read_numbers("vision model", lambda: int(text["max_position_embeddings"]))
        texts = _Texts(TextTokenizer(folder, positions, lower_case=False), positions, self._spec.options)
        self._loaded.fill(Loaded(texts, read_preprocessing(folder), dual, patches), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Token ids of texts, cut at the model's length; resized pixels of images."""
        loaded = self._loaded.parts()
        words = iter(loaded.texts.prepare([each for each in inputs if isinstance(each, str)]))
        prepared: list[Prepared] = []
        for each in inputs:
            match each:
                case str():
                    prepared.append(next(words))
                case Picture():
                    prepared.append(Prepared(loaded.patches, truncated=False, payload=loaded.preprocessing.read(each)))
                case _:
                    raise UnsupportedInputError("the model reads texts and images, one at a time")
        return prepared

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens a text has before it is cut."""
        texts = self._loaded.parts().texts
        return texts.tokenizer.count(texts.cleaned(given) if isinstance(given, str) else given)

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids."""
        return self._loaded.parts().texts.tokenizer.texts_of(tokens)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """Dense float32 vectors of shape [batch, dims]."""
        loaded = self._loaded.with_threads(threads)
        payloads: list[Array] = [each.payload for each in batch]
        words = [at for at, payload in enumerate(payloads) if payload.ndim == 1]
        pictures = [at for at, payload in enumerate(payloads) if payload.ndim > 1]
        vectors = torch.empty(len(batch), loaded.dual.width)
        if words:
            vectors[words] = loaded.dual.texts([payloads[at] for at in words]).float().cpu()
        if pictures:
            pixels = to_device(np.stack([payloads[at] for at in pictures]), self._loaded.device)
            vectors[pictures] = loaded.dual.images(shifted(pixels, loaded.preprocessing.scaling)).float().cpu()
        return {"dense": (normalized(vectors) if self._normalize else vectors).numpy()}


class _Texts:
    """Texts to token ids, cleaned and padded as the options say."""

    def __init__(self, tokenizer: TextTokenizer, length: int, options: Any) -> None:
        self.tokenizer = tokenizer
        self._length = length
        self._clean = options.get("clean")
        token = options.get("pad_token")
        self._padding = None if token is None else tokenizer.id_of(str(token))
        if token is not None and self._padding is None:
            raise LoadError(ErrorClass.UNKNOWN, f"pad_token '{token}' of the catalogue is no token of the model")

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        prepared = self.tokenizer.prepare([self.cleaned(text) for text in texts])
        if self._padding is None:
            return prepared
        return [Prepared(self._length, each.truncated, self._padded(each.payload)) for each in prepared]

    def cleaned(self, text: str) -> str:
        if self._clean is None:
            return text
        lowered = text.lower()
        return lowered if self._clean == "lower" else " ".join(lowered.translate(_NO_PUNCTUATION).split())

    def _padded(self, ids: Array) -> Array:
        assert self._padding is not None, "only with a padding token"  # noqa: S101 - asked before
        return np.pad(ids, (0, self._length - len(ids)), constant_values=self._padding)
