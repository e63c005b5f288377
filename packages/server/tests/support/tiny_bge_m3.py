"""Writes small seeded checkpoints laid out as BGE-M3's, and answers for them by its published recipe."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from tiny_families import COMMON, MAX_LENGTH, TOKENIZERS, WIDTH, Family, write_family, write_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import GteConfig, GteForTokenClassification

TOKEN_DIMS = 24
WORDLESS = ("<s>", "</s>", "<pad>", "<unk>")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the recipe gives for one text."""

    dense: Array
    sparse: dict[int, float]
    multivector: Array


def write_bge_m3(folder: Path, *, pickled: bool = True, seed: int = 3) -> Path:
    """An XLM-RoBERTa and two linear layers, pickled as published or as safetensors."""
    write_family(folder, Family("xlm-roberta", {"num_hidden_layers": 2}, pooling="cls", seed=seed))
    generator = torch.Generator().manual_seed(seed)
    for name, rows in (("sparse_linear", 1), ("colbert_linear", TOKEN_DIMS)):
        tensors = {
            "weight": torch.randn(rows, WIDTH, generator=generator),
            "bias": torch.randn(rows, generator=generator),
        }
        if pickled:
            torch.save(tensors, folder / f"{name}.pt")
        else:
            save_file(tensors, folder / f"{name}.safetensors")
    return folder


def write_mgte(folder: Path, *, seed: int = 5) -> Path:
    """Alibaba's encoder with a classifier of tokens for the weights of words, in one file as published."""
    tokenizer = TOKENIZERS["xlm-roberta"]()
    torch.manual_seed(seed)
    shape = {**COMMON, "num_hidden_layers": 2, "num_labels": 1, "vocab_size": tokenizer.get_vocab_size()}
    model = GteForTokenClassification(GteConfig(**shape, type_vocab_size=1, max_position_embeddings=MAX_LENGTH))
    return write_model(folder, model, tokenizer)


def mgte_recipe(folder: Path, text: str) -> tuple[Array, dict[int, float]]:
    """The first token's state as a unit vector, and the largest weight of each token that is not a special one."""
    model = GteForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    ids = tokenizer.encode(text).ids
    with torch.inference_mode():
        first = model.gte(input_ids=torch.tensor([ids])).last_hidden_state[0, 0]
        weights = torch.relu(model(input_ids=torch.tensor([ids])).logits[0, :, 0]).tolist()
    unused = {tokenizer.token_to_id(token) for token in WORDLESS}
    kept = [(token, weight) for token, weight in zip(ids, weights, strict=True) if token not in unused and weight > 0]
    return (first / first.norm()).numpy(), {token: max(w for t, w in kept if t == token) for token, _ in kept}


def recipe(folder: Path, text: str) -> Answer:
    """The published way, for one text alone, with transformers."""
    from transformers import XLMRobertaModel  # noqa: PLC0415 - the oracle's own, imported without its warnings before

    model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()
    heads = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in ("sparse_linear", "colbert_linear")}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    ids = tokenizer.encode(text).ids
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        words, tokens = (hidden @ head["weight"].t() + head["bias"] for head in heads.values())
    sparse: dict[int, float] = {}
    unused = {tokenizer.token_to_id(token) for token in WORDLESS}
    for token, weight in zip(ids, torch.relu(words[:, 0]).tolist(), strict=True):
        if token not in unused and weight > sparse.get(token, 0.0):
            sparse[token] = weight
    first, others = hidden[0], tokens[1:]
    return Answer(
        (first / first.norm()).numpy(), sparse, np.asarray((others / others.norm(dim=1, keepdim=True)).numpy())
    )
