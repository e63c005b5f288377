"""Writes small seeded decoders with a language head, which are asked for a word."""

import warnings
from pathlib import Path

import torch

from tiny_families import COMMON, CONFIGS, TOKENIZERS, write_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import AutoModelForCausalLM


def write_judge(folder: Path, *, tied: bool, model_type: str = "qwen3") -> Path:
    """A folder in the layout of transformers."""
    torch.manual_seed(2)
    tokenizer = TOKENIZERS[model_type]()
    shape = {**COMMON, "num_hidden_layers": 3, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    own = {"head_dim": 16} if model_type == "qwen3" else {}
    config = CONFIGS[model_type](**shape, **own, vocab_size=tokenizer.get_vocab_size())
    return write_model(folder, AutoModelForCausalLM.from_config(config), tokenizer)
