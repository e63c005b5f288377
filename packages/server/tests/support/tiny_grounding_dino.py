"""Writes a small seeded Grounding DINO, and finds objects with transformers and its processor: the oracle."""

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
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sie_protocol.arrays import Array
from tiny_vision import save_shaken

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig
    from transformers.image_transforms import get_size_with_aspect_ratio
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor

SHORTEST, LONGEST = 64, 96
MAX_TEXT = 32
# The model takes these ids for what separates phrases, whatever its tokenizer says.
SEPARATORS = {101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}
WORDS = {3: "a", 4: "cat", 5: "red", 6: "car", 7: "fast", 8: "dog"}
Found = list[tuple[float, list[float], str]]  # score, [left, top, right, bottom] in pixels, the phrase of transformers


@dataclass(frozen=True, slots=True)
class DinoOracle:
    """transformers' own model and processor."""

    model: Any
    steps: Any
    tokenizer: Tokenizer

    def __call__(self, image: bytes, labels: Sequence[str], box: float, text: float) -> Found:
        """What transformers finds in one image, the best first."""
        opened = Image.open(io.BytesIO(image)).convert("RGB")
        written = ". ".join(label.lower() for label in labels) + "."
        ids = torch.tensor([self.tokenizer.encode(written).ids])
        with torch.inference_mode():
            outputs = self.model(**self.steps(opened, return_tensors="pt"), input_ids=ids)
        decode = GroundingDinoProcessor.post_process_grounded_object_detection
        [found] = decode(self, outputs, ids, box, text, [(opened.height, opened.width)])
        rows = zip(found["scores"].tolist(), found["boxes"].tolist(), found["text_labels"], strict=True)
        return sorted(rows, key=lambda each: -each[0])

    def batch_decode(self, ids: Sequence[Sequence[Any]]) -> list[str]:
        """The one thing that the processor asks of its tokenizer."""
        return [self.tokenizer.decode([int(each) for each in row]) for row in ids]


def write_grounding_dino(folder: Path) -> Path:
    """A folder as published Grounding DINO models have it."""
    text = BertConfig(vocab_size=1100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    image = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, out_indices=[2, 3, 4]
    )
    config = GroundingDinoConfig(
        backbone_config=image,
        text_config=text,
        d_model=64,
        num_queries=24,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_text_len=MAX_TEXT,
    )
    torch.manual_seed(7)
    save_shaken(folder, GroundingDinoForObjectDetection(config), _tokenizer())
    GroundingDinoImageProcessorPil(size={"shortest_edge": SHORTEST, "longest_edge": LONGEST}).save_pretrained(folder)
    return folder


def dino_oracle(folder: Path) -> DinoOracle:
    """transformers, for a folder of `write_grounding_dino`."""
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    size = json.loads((folder / "preprocessor_config.json").read_text())["size"]
    return DinoOracle(model, processor(**size), Tokenizer.from_file(str(folder / "tokenizer.json")))


def processor(shortest_edge: int, longest_edge: int) -> Any:
    """The processor of transformers that needs no torchvision."""
    return GroundingDinoImageProcessorPil(size={"shortest_edge": shortest_edge, "longest_edge": longest_edge})


def resized(image: bytes) -> Array:
    """What it makes of an image, before numbers are shifted: [height, width, 3] of uint8."""
    steps = processor(SHORTEST, LONGEST)
    steps.do_normalize = steps.do_rescale = False
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    return np.asarray(steps(opened, return_tensors="np").pixel_values[0]).transpose(1, 2, 0)


def size_of(width: int, height: int) -> tuple[int, int]:
    """(width, height) after resizing, as the published models do it."""
    rows, columns = get_size_with_aspect_ratio((height, width), 800, 1333)
    return columns, rows


def _tokenizer() -> Tokenizer:
    named = {0: "[PAD]", 1: "[UNK]", **WORDS, **SEPARATORS}
    tokenizer = Tokenizer(models.WordLevel({named.get(at, f"[{at}]"): at for at in range(1100)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return tokenizer
