"""Writes small seeded BERT rerankers, and answers for them with transformers and with sentence-transformers."""

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import Pair
from tiny_bert import SPECIAL, WORDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import BertConfig, BertForSequenceClassification

VOCABULARY = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
POSITIONS = 48


def write_reranker(folder: Path, *, seed: int = 0, labels: int = 1, types: int = 2, **config: Any) -> Path:
    """A folder as a published cross-encoder's; `config` are further keys of its config.json."""
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        type_vocab_size=types,
        initializer_range=0.4,  # large enough for attention and token types to matter
        num_labels=labels,
    )
    BertForSequenceClassification(shape).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **config}))
    BertWordPieceTokenizer(VOCABULARY).save(str(folder / "tokenizer.json"))
    own = {"tokenizer_class": "BertTokenizerFast", "model_max_length": POSITIONS, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


def logits(folder: Path, pairs: Sequence[Pair], max_length: int = POSITIONS) -> Array:
    """What transformers gives for each pair alone: the raw logit, float32 of shape [pairs]."""
    model = BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = BertWordPieceTokenizer(VOCABULARY)
    rows = []
    for pair in pairs:
        first, second = (tokenizer.encode(text, add_special_tokens=False).ids for text in pair)
        room, half = max_length - 3, (max_length - 3) // 2
        if len(first) + len(second) > room:  # the longer text is cut; where both must be, it keeps the odd token
            if len(first) <= len(second):
                first = first[: max(half, room - len(second))]
                second = second[: room - len(first)]
            else:
                second = second[: max(half, room - len(first))]
                first = first[: room - len(second)]
        ids = [VOCABULARY["[CLS]"], *first, VOCABULARY["[SEP]"], *second, VOCABULARY["[SEP]"]]
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        with torch.inference_mode():
            output = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types]))
        rows.append(output.logits[0, 0].item())
    return np.array(rows, np.float32)


def predictions(folders: Sequence[Path], pairs: Sequence[Pair]) -> list[Array]:
    """What sentence-transformers gives with each model, activation and truncation included; in a process of its own."""
    code = (
        "import sys, json; from sentence_transformers import CrossEncoder as C; pairs = json.load(sys.stdin);"
        "print(json.dumps([C(f, device='cpu').predict(pairs).tolist() for f in sys.argv[1:]]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, folders)]
    done = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, check=True, timeout=100)
    return [np.array(each, np.float32) for each in json.loads(done.stdout.splitlines()[-1])]
