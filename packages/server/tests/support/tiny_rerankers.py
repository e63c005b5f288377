"""Writes small seeded rerankers of the families beyond BERT, and answers for them with transformers."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, processors

from sie_protocol.arrays import Array
from sie_server.adapters.base import Pair
from tiny_families import COMMON, CONFIGS, TOKENIZERS, write_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import AutoModelForSequenceClassification

PAIRS = {
    "xlm-roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "gte": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "modernbert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
}


def write_pair_model(folder: Path, model_type: str, *, seed: int = 0, **config: Any) -> Path:
    """A sequence classifier of one label with random weights, norms and biases included."""
    torch.manual_seed(seed)
    tokenizer = TOKENIZERS[model_type]()
    single, pair = PAIRS[model_type]
    used = [(each, tokenizer.token_to_id(each)) for each in set(single.split()) if each != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    shape = {**COMMON, "num_hidden_layers": 2, "num_labels": 1, "vocab_size": tokenizer.get_vocab_size(), **config}
    model = AutoModelForSequenceClassification.from_config(CONFIGS[model_type](**shape))
    return write_model(folder, model, tokenizer)


def pair_logits(folder: Path, pairs: Sequence[Pair], max_length: int) -> Array:
    """The raw logit of each pair alone, float32 of shape [pairs]."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    rows = []
    for pair in pairs:
        with torch.inference_mode():
            encoding, inputs = tokenizer.encode(*pair), {}
            if getattr(model.config, "type_vocab_size", 0) > 1:
                inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
            rows.append(model(input_ids=torch.tensor([encoding.ids]), **inputs).logits[0, 0].item())
    return np.array(rows, np.float32)


def set_config(folder: Path, **values: Any) -> None:
    """Change keys of the configuration of a written model."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **values}))
