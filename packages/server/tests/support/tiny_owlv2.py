"""Writes a small seeded OWLv2 checkpoint, and finds objects with transformers and its processor: the oracle."""

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from tiny_vision import CLIP_END, SIDE, TOKENS, TOWER, WIDTH, save_shaken, words_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import Owlv2Config, Owlv2ForObjectDetection
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

PATCHES = 16
Boxes = list[tuple[str, float, list[float]]]  # label, score, and [left, top, right, bottom] in pixels


@dataclass(frozen=True, slots=True)
class Owlv2Oracle:
    """transformers' own model and processor."""

    model: Any
    steps: Any
    tokenizer: Tokenizer

    def __call__(self, image: bytes, labels: Sequence[str], threshold: float) -> Boxes:
        """What transformers finds in one image, the best first."""
        opened = Image.open(io.BytesIO(image)).convert("RGB")
        ids = [self.tokenizer.encode(label).ids for label in labels]
        tokens = torch.tensor([each + [0] * (TOKENS - len(each)) for each in ids])
        mask = torch.tensor([[1] * len(each) + [0] * (TOKENS - len(each)) for each in ids])
        with torch.inference_mode():
            pixels = self.steps(opened, return_tensors="pt").pixel_values
            outputs = self.model(input_ids=tokens, attention_mask=mask, pixel_values=pixels)
        [found] = self.steps.post_process_object_detection(outputs, threshold, [(opened.height, opened.width)])
        rows = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
        return sorted(((labels[label], score, box) for score, label, box in rows), key=lambda each: -each[1])


def write_owlv2(folder: Path, *, side: int = SIDE) -> Path:
    """A folder as published OWLv2 models have it; `side` is what the preprocessor makes of an image."""
    start = "<|startoftext|>"
    tokenizer = words_tokenizer(["[UNK]", start], [CLIP_END], f"{start} $A {CLIP_END}")
    text = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": TOKENS}
    ids = {"bos_token_id": 1, "eos_token_id": tokenizer.token_to_id(CLIP_END), "pad_token_id": 0}
    vision = {"image_size": SIDE, "patch_size": SIDE // 4, "hidden_act": "quick_gelu"}
    config = Owlv2Config(
        text_config={**TOWER, **text, **ids}, vision_config={**TOWER, "hidden_size": 24, **vision}, projection_dim=WIDTH
    )
    torch.manual_seed(5)
    save_shaken(folder, Owlv2ForObjectDetection(config), tokenizer)
    processor(side).save_pretrained(folder)
    return folder


def owlv2_oracle(folder: Path) -> Owlv2Oracle:
    """transformers, for a folder of `write_owlv2`."""
    model = Owlv2ForObjectDetection.from_pretrained(folder, attn_implementation="eager").eval()
    side = json.loads((folder / "preprocessor_config.json").read_text())["size"]["height"]
    return Owlv2Oracle(model, processor(side), Tokenizer.from_file(str(folder / "tokenizer.json")))


def in_the_image(boxes: Boxes, width: int, height: int) -> Boxes:
    """What transformers found, cut at the edges of the image, as [x, y, width, height]; what is outside is none."""
    cut = [
        (label, score, max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
        for label, score, (left, top, right, bottom) in boxes
    ]
    return [
        (label, score, [left, top, right - left, bottom - top])
        for label, score, left, top, right, bottom in cut
        if right > left and bottom > top
    ]


def processor(height: int, width: int | None = None) -> Any:
    """The processor of transformers that needs scipy and no torchvision."""
    return Owlv2ImageProcessorPil(size={"height": height, "width": width or height})


def processed(pixels: Array, height: int, width: int | None = None) -> Array:
    """What it makes of an image [height, width, 3] of uint8: [3, height, width] of float32."""
    return np.asarray(processor(height, width)(Image.fromarray(pixels), return_tensors="np").pixel_values[0])
