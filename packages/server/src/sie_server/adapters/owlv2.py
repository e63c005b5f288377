"""Things in an image that the caller names: OWLv2.

The image tower looks at a square of patches, and each patch says which of the labels fits it best and where the thing
is that it belongs to. A patch whose best label is sure enough is an object; the published objectness head has no part
in this and is not computed.

Options of a request: `score_threshold` (0.1), `label_template` (none: labels are read as they are), `nms_threshold`
(none: one thing may be found by several patches), `max_objects` (1000).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import (
    Capabilities,
    DetectedObject,
    Input,
    LabelledPicture,
    LoadError,
    Outputs,
    Prepared,
    UnsupportedInputError,
    labelled_pictures,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.boxes import Seen, corners_of, objects
from sie_server.adapters.shared.checkpoint import Checkpoint, expect, read_numbers
from sie_server.adapters.shared.chunks import chunk_tokens
from sie_server.adapters.shared.clip_tokenizer import open_clip_tokenizer
from sie_server.adapters.shared.dual_encoder import DEFAULTS, HIGHEST_ID, Clip
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.owl_heads import OwlHeads
from sie_server.adapters.shared.square import Squared, Squaring, read_squaring
from sie_server.adapters.shared.torch_use import precision, to_device
from sie_server.adapters.shared.vector_cache import Key, VectorCache
from sie_server.core.lifecycle import ErrorClass

SCORE_THRESHOLD: Final = 0.1
SLOT: Final = "{}"  # of a template, where the label goes


@dataclass(frozen=True, slots=True)
class Scene:
    """One prepared image and what is looked for in it; `ids` are each label's tokens, special ones included."""

    picture: Squared
    labels: tuple[str, ...]
    ids: tuple[Key, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `longest`: tokens of a label; `patches`: of every image, whatever its size."""

    tokenizer: Tokenizer
    longest: int
    squaring: Squaring
    patches: int
    clip: Clip
    heads: OwlHeads
    labels: VectorCache


class Owlv2Adapter(ModelAdapter[Loaded]):
    """The towers of CLIP with heads on every patch; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Objects in images; all images have the same number of patches, so nothing is padded."""
        return Capabilities(outputs=frozenset({"objects"}))

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, own, tensors = read_model(self._spec.source)
        expect(own, "model_type", "owlv2")
        config = {part: {**defaults, **own.get(part, {})} for part, defaults in DEFAULTS["owlv2"].items()}
        config["text_config"]["eos_token_id"] = HIGHEST_ID
        text, vision = config["text_config"], config["vision_config"]
        side, patch, eps = read_numbers(
            "OWLv2",
            lambda: (int(vision["image_size"]), int(vision["patch_size"]), float(vision["layer_norm_eps"])),
        )
        squaring = read_squaring(folder)
        if squaring.size != (side, side):
            message = f"the preprocessor makes images of {squaring.size} pixels, the model reads {(side, side)}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        grid = (side // patch, side // patch)
        checkpoint = Checkpoint(tensors, _name, device)
        with loading_onto(device):
            clip = Clip(config, checkpoint, device, precision(self._spec.precision, device))
            heads = OwlHeads(checkpoint, grid, clip.width, eps)
        longest = read_numbers("OWLv2", lambda: int(text["max_position_embeddings"]))
        labels = VectorCache(clip.texts, chunk_tokens(device))
        tokenizer = open_clip_tokenizer(folder)
        self._loaded.fill(Loaded(tokenizer, longest, squaring, grid[0] * grid[1], clip, heads, labels), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """`payload` is a Scene; tokens are the patches of the image and those of its labels.

        Raises:
            UnsupportedInputError: an image that cannot be read, no labels, a label that is too long, or no image.
        """
        loaded = self._loaded.parts()
        return [_prepared(each, loaded) for each in labelled_pictures(inputs)]

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The objects of each image, the best first."""
        loaded = self._loaded.with_threads(threads)
        scenes: list[Scene] = [each.payload for each in batch]
        frames = loaded.squaring.framed([each.picture for each in scenes])
        states = loaded.clip.states(to_device(frames, self._loaded.device))
        return {"objects": [_found(*each, loaded) for each in zip(scenes, states, strict=True)]}


def _name(name: str) -> str:
    """The tower's tensors are called as in CLIP, which misspells one of them."""
    return name.removeprefix("owlv2.").replace("pre_layernorm", "pre_layrnorm")


def _prepared(given: LabelledPicture, loaded: Loaded) -> Prepared:
    if not given.labels:
        raise UnsupportedInputError("it needs labels to look for")
    ids = _read(given, loaded)
    picture = loaded.squaring.read(given.picture)
    tokens = loaded.patches + sum(map(len, ids))
    return Prepared(tokens, truncated=False, payload=Scene(picture, given.labels, ids, given.options))


def _read(given: LabelledPicture, loaded: Loaded) -> tuple[Key, ...]:
    template = str(given.options.get("label_template", SLOT))
    texts = [template.replace(SLOT, label) for label in given.labels]
    encodings = loaded.tokenizer.encode_batch_fast(texts)
    for text, encoding in zip(texts, encodings, strict=True):
        if len(encoding) > loaded.longest:
            raise UnsupportedInputError(
                f"the label '{text[:100]}' has {len(encoding)} tokens, the limit is {loaded.longest}; make it shorter"
            )
    return tuple(tuple(each.ids) for each in encodings)


def _found(scene: Scene, states: torch.Tensor, loaded: Loaded) -> tuple[DetectedObject, ...]:
    features = loaded.heads.features(states)
    logits, best = loaded.heads.logits(features, loaded.labels.of(scene.ids)).max(dim=1)
    scores = logits.sigmoid()
    sure = (scores > float(scene.options.get("score_threshold", SCORE_THRESHOLD))).nonzero()[:, 0]
    boxes = loaded.heads.boxes(features, sure)
    seen = Seen(_array(scores[sure]), _array(best[sure]), corners_of(_array(boxes)) * scene.picture.side)
    return objects(seen, scene.labels, scene.picture.width, scene.picture.height, scene.options)


def _array(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.cpu().numpy())
