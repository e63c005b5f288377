"""Things in an image that the caller names: Grounding DINO, computed by transformers.

The model reads all labels as one text, "a cat. a dog.", and tells for each of its boxes how well every token of that
text fits it. The score of a box is that of its best token, its label the one that its best token of a label belongs to.
Float32 on every device.

Options of a request: `box_threshold` (0.25), `text_threshold` (0.25, of the best token of the label), `nms_threshold`
(none), `max_objects` (1000).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer

from sie_server.adapters.base import (
    Capabilities,
    DetectedObject,
    Input,
    LabelledPicture,
    Outputs,
    Prepared,
    UnsupportedInputError,
    labelled_pictures,
)
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.boxes import Seen, corners_of, objects
from sie_server.adapters.shared.checkpoint import expect
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.patches import shifted
from sie_server.adapters.shared.resizing import Resizing, Scaled, read_resizing
from sie_server.adapters.shared.tokenize import open_tokenizer
from sie_server.adapters.shared.torch_use import to_device
from sie_server.adapters.shared.transformers_models import (
    grouped,
    read_transformers_config,
    transformers_package,
    with_weights,
)

THRESHOLD: Final = 0.25
SEPARATORS: Final = ".?"  # the model takes what stands between them for one thing
PLACE: Final = 16  # pixels along a side; an image costs one token for each square of them
Span = tuple[int, int]  # of tokens: the first, and behind the last


@dataclass(frozen=True, slots=True)
class Scene:
    """One prepared image and what is looked for in it: the text's token ids, and where in it each label stands."""

    picture: Scaled
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    labels: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `longest`: tokens of all labels together."""

    tokenizer: Tokenizer
    longest: int
    resizing: Resizing
    model: Any


class GroundingDinoAdapter(ModelAdapter[Loaded]):
    """A Swin transformer and BERT that look at each other, and a decoder of boxes."""

    @property
    def capabilities(self) -> Capabilities:
        """Objects in images; only images of one size are computed together, so nothing is padded."""
        return Capabilities(outputs=frozenset({"objects"}))

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", "grounding-dino")
        with loading_onto(device):
            model = _filled(config, tensors).to(device)
        longest = int(model.config.max_text_len)
        self._loaded.fill(Loaded(open_tokenizer(folder), longest, read_resizing(folder), model), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """`payload` is a Scene.

        Raises:
            UnsupportedInputError: an image that cannot be read, labels that are not one text, or no image.
        """
        loaded = self._loaded.parts()
        return [_prepared(each, loaded) for each in labelled_pictures(inputs)]

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The objects of each image, the best first. Images share a pass if they are alike in size and labels."""
        loaded = self._loaded.with_threads(threads)
        found: list[tuple[DetectedObject, ...]] = [()] * len(batch)
        for places in grouped([(each.payload.picture.pixels.shape, each.payload.ids) for each in batch]):
            scenes = [batch[at].payload for at in places]
            for at, objects_of_one in zip(places, self._found(loaded, scenes), strict=True):
                found[at] = objects_of_one
        return {"objects": found}

    def _found(self, loaded: Loaded, scenes: Sequence[Scene]) -> list[tuple[DetectedObject, ...]]:
        pixels = to_device(np.stack([each.picture.pixels for each in scenes]), self._loaded.device)
        ids = to_device(np.array([each.ids for each in scenes], np.int64), self._loaded.device)
        seen = loaded.model(
            pixel_values=shifted(pixels, loaded.resizing.scaling),
            pixel_mask=torch.ones(pixels.shape[:3], dtype=torch.long, device=self._loaded.device),
            input_ids=ids,
            token_type_ids=torch.zeros_like(ids),
            attention_mask=torch.ones_like(ids),
        )
        rows = zip(scenes, seen.logits.sigmoid(), seen.pred_boxes, strict=True)
        return [_objects(scene, fits, boxes) for scene, fits, boxes in rows]


def _filled(own: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """The model of transformers with these weights, all of them.

    Raises:
        LoadError: DEPENDENCY without that package, UNKNOWN for a configuration or weights of another model.
    """
    transformers = transformers_package("grounding_dino")
    config = read_transformers_config("Grounding DINO", lambda: transformers.GroundingDinoConfig.from_dict(dict(own)))
    return with_weights(transformers.GroundingDinoForObjectDetection, config, tensors)


def _prepared(given: LabelledPicture, loaded: Loaded) -> Prepared:
    ids, spans = _read(given.labels, loaded)
    picture = loaded.resizing.read(given.picture)
    rows, columns, _ = picture.pixels.shape
    tokens = math.ceil(rows / PLACE) * math.ceil(columns / PLACE) + len(ids)
    return Prepared(tokens, truncated=False, payload=Scene(picture, ids, spans, given.labels, given.options))


def _read(labels: Sequence[str], loaded: Loaded) -> tuple[tuple[int, ...], tuple[Span, ...]]:
    """The token ids of the one text that the labels make, and the tokens of each label in it."""
    if not labels:
        raise UnsupportedInputError("it needs labels to look for")
    marked = next((each for each in labels if any(mark in each for mark in SEPARATORS)), None)
    if marked is not None:
        raise UnsupportedInputError(f"the label '{marked[:100]}' has a full stop or a question mark; leave it out")
    words = [each.strip().lower() for each in labels]
    text = "".join(f"{each}. " for each in words).rstrip()
    encoding = loaded.tokenizer.encode(text)
    if len(encoding) > loaded.longest:
        raise UnsupportedInputError(
            f"{len(labels)} labels have {len(encoding)} tokens together, the limit is {loaded.longest}; send fewer"
        )
    spans, start = [], 0
    for label, word in zip(labels, words, strict=True):
        span = _tokens(encoding.offsets, start, start + len(word))
        if span is None:
            raise UnsupportedInputError(f"the label '{label[:100]}' has nothing that the model reads")
        spans.append(span)
        start += len(word) + 2
    return tuple(encoding.ids), tuple(spans)


def _tokens(offsets: Sequence[tuple[int, int]], start: int, end: int) -> Span | None:
    """The tokens that stand in these characters; special tokens stand in none."""
    inside = [at for at, (low, high) in enumerate(offsets) if start <= low < high <= end]
    return (inside[0], inside[-1] + 1) if inside else None


def _objects(scene: Scene, fits: torch.Tensor, boxes: torch.Tensor) -> tuple[DetectedObject, ...]:
    """From how well each token fits each box [boxes, tokens], and the boxes as shares of the image [boxes, 4]."""
    scores = fits.amax(dim=1)
    of_labels = torch.stack([fits[:, low:high].amax(dim=1) for low, high in scene.spans], dim=1)
    surest, best = of_labels.max(dim=1)
    sure = scores > float(scene.options.get("box_threshold", THRESHOLD))
    kept = (sure & (surest > float(scene.options.get("text_threshold", THRESHOLD)))).nonzero()[:, 0]
    width, height = scene.picture.width, scene.picture.height
    shares = corners_of(boxes[kept].cpu().numpy())
    corners = shares * np.array([width, height, width, height], np.float32)
    seen = Seen(scores[kept].cpu().numpy(), best[kept].cpu().numpy(), corners)
    return objects(seen, scene.labels, width, height, scene.options)
