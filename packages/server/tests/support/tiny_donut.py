"""Writes a small seeded Donut, and answers for it with transformers and its processor: the oracle."""

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from sie_protocol.arrays import Array
from tiny_vision import save_shaken

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import DonutSwinConfig, MBartConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel
    from transformers.models.donut.image_processing_pil_donut import DonutImageProcessorPil
    from transformers.models.donut.processing_donut import DonutProcessor

HEIGHT, WIDTH = 64, 48
POSITIONS = 40
BOS, PAD, EOS, UNK = range(4)
FIELDS: Final = ["menu", "nm", "cnt", "price", "total"]
CATEGORIES: Final = ["<invoice/>", "<letter/>"]
LETTERS: Final = "▁abcdehilnorstw?.1290"  # as XLM-RoBERTa's tokenizer writes a space


@dataclass(frozen=True, slots=True)
class DonutOracle:
    """transformers' own model and processor."""

    model: Any
    steps: Any
    tokenizer: Tokenizer

    def ids(self, image: bytes, prompt: str, **wanted: Any) -> list[int]:
        """What is written about one image behind a prompt, with the prompt."""
        given = torch.tensor([self.tokenizer.encode(prompt, add_special_tokens=False).ids])
        opened = Image.open(io.BytesIO(image)).convert("RGB")
        with torch.inference_mode():
            found = self.model.generate(
                pixel_values=self.steps(opened, return_tensors="pt")["pixel_values"],
                decoder_input_ids=given,
                bad_words_ids=[[UNK]],
                do_sample=False,
                **wanted,
            )
        ids: list[int] = found[0].tolist()
        return ids[: ids.index(EOS) + 1] if EOS in ids else ids

    def fields(self, text: str) -> Any:
        """What its processor makes of a text without its task's mark."""
        return fields_of_transformers(text, set(self.tokenizer.get_vocab()))


@dataclass(frozen=True, slots=True)
class AddedWords:
    """The one thing that the processor asks of its tokenizer."""

    words: set[str]

    def get_added_vocab(self) -> set[str]:
        """Marks that the tokenizer was given."""
        return self.words


def fields_of_transformers(text: str, marks: set[str]) -> Any:
    """What its processor makes of a text."""
    return DonutProcessor.token2json(Decoder(AddedWords(marks)), text)


@dataclass(frozen=True, slots=True)
class Decoder:
    """A processor, as far as reading texts needs one."""

    tokenizer: AddedWords

    def token2json(self, tokens: str, is_inner_value: bool = False, added_vocab: Any = None) -> Any:
        """transformers' own."""
        return DonutProcessor.token2json(self, tokens, is_inner_value, added_vocab)


def write_donut(folder: Path, task: str, *, asks: bool = False, legacy_size: bool = False) -> Path:
    """A folder as published models have it, fine-tuned for a task of this mark."""
    tokenizer = _tokenizer(task, asks=asks)
    size = tokenizer.get_vocab_size()
    swin = DonutSwinConfig(
        image_size=[HEIGHT, WIDTH], patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=2
    )
    mbart = MBartConfig(
        vocab_size=size,
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        scale_embedding=True,
        is_decoder=True,
        is_encoder_decoder=False,
        add_cross_attention=True,
        add_final_layer_norm=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    torch.manual_seed(4)
    model = VisionEncoderDecoderModel(VisionEncoderDecoderConfig(encoder=swin.to_dict(), decoder=mbart.to_dict()))
    start = tokenizer.token_to_id(task)
    rules = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": start, "forced_eos_token_id": EOS}
    for key, value in rules.items():
        setattr(model.generation_config, key, value)
    save_shaken(folder, model, tokenizer)
    DonutImageProcessorPil(size={"height": HEIGHT, "width": WIDTH}).save_pretrained(folder)
    if legacy_size:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "size": [WIDTH, HEIGHT]}))
    return folder


def published_shape() -> Any:
    """The configuration of donut-base, as far as its images go."""
    swin = DonutSwinConfig(image_size=[2560, 1920], patch_size=4, depths=[2, 2, 14, 2])
    return VisionEncoderDecoderConfig(encoder=swin.to_dict(), decoder={"model_type": "mbart"})


def donut_oracle(folder: Path) -> DonutOracle:
    """transformers, for a folder of `write_donut`."""
    model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
    return DonutOracle(model, donut_steps(), Tokenizer.from_file(str(folder / "tokenizer.json")))


def donut_steps(**how: Any) -> Any:
    """The processor of transformers that needs no torchvision."""
    return DonutImageProcessorPil(size={"height": HEIGHT, "width": WIDTH}, **how)


def sheet_of(image: bytes, **how: Any) -> Array:
    """What it makes of an image, before numbers are shifted: [height, width, 3] of uint8."""
    steps = donut_steps(**how)
    steps.do_normalize = steps.do_rescale = False
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    return np.asarray(steps(opened, return_tensors="np").pixel_values[0]).transpose(1, 2, 0)


def _tokenizer(task: str, *, asks: bool) -> Tokenizer:
    pieces: Sequence[tuple[str, float]] = [
        *((each, 0.0) for each in ("<s>", "<pad>", "</s>", "<unk>")),
        *((each, -2.0) for each in LETTERS),
        *(("▁the", -1.0), ("▁total", -1.0)),
    ]
    tokenizer = Tokenizer(models.Unigram([*pieces], UNK, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    names = [*FIELDS, *(("question", "answer") if asks else ())]
    marks = [task, "<sep/>", *CATEGORIES, *(mark for name in names for mark in (f"<s_{name}>", f"</s_{name}>"))]
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in ("<s>", "<pad>", "</s>", "<unk>")])
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in marks])
    around = [("<s>", BOS), ("</s>", EOS)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=around)
    return tokenizer
