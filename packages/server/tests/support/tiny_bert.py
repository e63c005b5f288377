"""Writes small seeded BERT checkpoints, and answers for them with transformers: the oracle of our encoder."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from sie_protocol.arrays import Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import BertConfig, BertForMaskedLM, BertModel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "dogs", "run", "##ning", "far", "away", ",", ".")
WIDTH = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """How a checkpoint is written; each field is a variety found among published ones."""

    pooling: str = "mean"
    normalize: bool = True
    bert_prefix: bool = False
    old_norm_names: bool = False
    max_seq_length: int = 64
    seed: int = 0


def write_checkpoint(folder: Path, shape: Shape = Shape()) -> Path:
    """A sentence-transformers folder with two random layers."""
    torch.manual_seed(shape.seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=320,
        initializer_range=0.4,  # large enough for attention to matter
    )
    (BertForMaskedLM if shape.bert_prefix else BertModel)(config).save_pretrained(folder)
    if shape.old_norm_names:
        rename_norms(folder / "model.safetensors")
    _write_json(folder / "modules.json", _modules(normalize=shape.normalize))
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": shape.max_seq_length, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    flags = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}
    _write_json(folder / "1_Pooling" / "config.json", {flag: name == shape.pooling for name, flag in flags.items()})
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    BertWordPieceTokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    return folder


def oracle(folder: Path, texts: Sequence[str], shape: Shape = Shape()) -> Array:
    """What transformers gives for each text alone, pooled by the book."""
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()
    tokenizer = BertWordPieceTokenizer({word: index for index, word in enumerate((*SPECIAL, *WORDS))})
    tokenizer.enable_truncation(shape.max_seq_length)
    rows = []
    for text in texts:
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[shape.pooling]
        rows.append((vector / vector.norm() if shape.normalize else vector).numpy())
    return np.stack(rows)


def rename_norms(file: Path) -> None:
    """The spelling of checkpoints from the first years."""
    names = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    tensors = load_file(file)
    for new, old in names:
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _modules(*, normalize: bool) -> list[dict[str, object]]:
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    return [
        {"idx": at, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(kinds)
    ]


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))
