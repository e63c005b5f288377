"""Writes small seeded CLIP and SigLIP checkpoints, and answers for them with transformers: the oracle."""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from sie_protocol.arrays import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

WIDTH = 32
TOKENS = 16
SIDE = 32
WORDS = ["a", "photo", "of", "the", "cat", "dog", "two", "red", "car", "runs", "fast"]
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
CLIP_END, SIGLIP_PAD = "<|endoftext|>", "</s>"


def write_clip(folder: Path, *, activation: str = "quick_gelu", wrong_end: bool = False) -> Path:
    """A folder as published CLIP models have it; older ones name 2 as their end token."""
    tokenizer = words_tokenizer(["<|startoftext|>", "[UNK]"], [CLIP_END], f"<|startoftext|> $A {CLIP_END}")
    end = tokenizer.token_to_id(CLIP_END)
    text = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": TOKENS, "hidden_act": activation}
    ids = {"bos_token_id": 0, "eos_token_id": 2 if wrong_end else end, "pad_token_id": end}
    vision = {"image_size": SIDE, "patch_size": 8, "hidden_act": activation}
    config = CLIPConfig(
        text_config={**TOWER, **text, **ids, "projection_dim": WIDTH},
        vision_config={**TOWER, **vision, "projection_dim": WIDTH},
        projection_dim=WIDTH,
    )
    torch.manual_seed(1)
    save_shaken(folder, CLIPModel(config), tokenizer)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return folder


def write_siglip(folder: Path) -> Path:
    """A folder as published SigLIP models have it."""
    tokenizer = words_tokenizer(["[UNK]", SIGLIP_PAD], [], f"$A {SIGLIP_PAD}")
    text = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": TOKENS, "projection_size": WIDTH}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"image_size": SIDE, "patch_size": 8}
    config = SiglipConfig(text_config={**TOWER, **text, **ids}, vision_config={**TOWER, **vision})
    torch.manual_seed(2)
    save_shaken(folder, SiglipModel(config), tokenizer)
    size = {"height": SIDE, "width": SIDE}
    SiglipImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return folder


def oracle_texts(folder: Path, texts: Sequence[str]) -> Array:
    """What transformers gives for each text alone."""
    model, tokenizer = _oracle(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    if isinstance(model, SiglipModel):
        tokenizer.enable_padding(length=TOKENS, pad_id=1, pad_token=SIGLIP_PAD)
    with torch.inference_mode():
        return _unit([_features(model.get_text_features(torch.tensor([tokenizer.encode(text).ids]))) for text in texts])


def oracle_images(folder: Path, images: Sequence[bytes]) -> Array:
    """What transformers and its processor give for each image alone."""
    model = _oracle(folder)
    processor: Any = CLIPImageProcessorPil if isinstance(model, CLIPModel) else SiglipImageProcessorPil
    steps = processor.from_pretrained(folder)
    opened = [Image.open(io.BytesIO(each)).convert("RGB") for each in images]
    with torch.inference_mode():
        pixels = [steps(each, return_tensors="pt").pixel_values for each in opened]
        return _unit([_features(model.get_image_features(each)) for each in pixels])


def picture(width: int, height: int, seed: int = 0, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """An encoded image of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    image = Image.fromarray(coarse, "RGBA").resize((width, height)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _oracle(folder: Path) -> Any:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = {"clip": CLIPModel, "siglip": SiglipModel}[kind]
    return model.from_pretrained(folder, attn_implementation="eager").eval()


def _features(found: Any) -> Array:
    features: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return np.asarray(features[0].numpy())


def _unit(rows: list[Array]) -> Array:
    stacked = np.stack(rows)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))


def save_shaken(folder: Path, model: Any, tokenizer: Tokenizer) -> None:
    """A seeded model with parameters unlike those that training starts from, and its tokenizer."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        else:
            parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def words_tokenizer(before: list[str], after: list[str], template: str) -> Tokenizer:
    """Words of `WORDS` as tokens, with special ones of lower and higher ids around them."""
    vocabulary = {word: at for at, word in enumerate([*before, *WORDS, *after])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*before, *after])
    used = [(word, vocabulary[word]) for word in template.split() if word in vocabulary]
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=used)
    return tokenizer
