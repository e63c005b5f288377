"""Writes small seeded checkpoints with a head (masked language model, ColBERT); transformers answers for them."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from sie_protocol.arrays import Array
from tiny_bert import SPECIAL, WIDTH, WORDS, rename_norms

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertModel,
        DistilBertConfig,
        DistilBertForMaskedLM,
        GteConfig,
        GteForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

VOCABULARY = (*SPECIAL, "[unused0]", "[unused1]", *WORDS, "!", "'", "#", "?")
MAX_LENGTH = 320
BERT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_LENGTH,
    "initializer_range": 0.4,
}
TEXTS = [
    "the cat sat on a mat",
    "",
    "two dogs running far away , and a cat saw the two dogs .",
    "unheard-of words",
    " ".join(["the cat saw two dogs running ,"] * 9),
    "cat",
]


def tokenizer(max_length: int = MAX_LENGTH) -> BertWordPieceTokenizer:
    """The tokenizer of all checkpoints here."""
    made = BertWordPieceTokenizer({word: index for index, word in enumerate(VOCABULARY)})
    made.enable_truncation(max_length)
    return made


def write_mlm(folder: Path, *, kind: str = "bert", old_norm_names: bool = False, seed: int = 0) -> Path:
    """A masked language model with two random layers, as published ones are stored."""
    torch.manual_seed(seed)
    made = {"bert": _bert_mlm, "distilbert": _distilbert_mlm, "roberta": _roberta_mlm, "gte": _gte_mlm}
    model = made[kind]()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.4)  # zero by default, which would hide a forgotten bias
    model.save_pretrained(folder)
    if old_norm_names:
        rename_norms(folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def mlm_weights(folder: Path, texts: Sequence[str], *, kind: str = "bert", max_length: int = MAX_LENGTH) -> Array:
    """log(1 + relu(logit)), largest over the tokens of each text alone; [texts, vocabulary]."""
    oracles = {
        "bert": BertForMaskedLM,
        "distilbert": DistilBertForMaskedLM,
        "roberta": RobertaForMaskedLM,
        "gte": GteForMaskedLM,
    }
    model = oracles[kind].from_pretrained(folder, attn_implementation="eager").eval()
    rows = []
    for text in texts:
        ids = tokenizer(max_length).encode(text).ids
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        rows.append(torch.log1p(torch.relu(logits)).max(dim=0).values.numpy())
    return np.stack(rows)


def write_colbert(folder: Path, *, token_dims: int = 24, seed: int = 0) -> Path:
    """A BERT under `bert.` with the projection `linear.weight` beside it."""
    torch.manual_seed(seed)
    BertModel(_bert_config(), add_pooling_layer=False).save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(tensors | {"linear.weight": torch.randn(token_dims, WIDTH)}, file, metadata={"format": "pt"})
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def colbert_vectors(folder: Path, ids: Sequence[int], attended: Sequence[int]) -> Array:
    """Projected unit vectors of every token of a padded input: [tokens, token_dims]."""
    tensors = load_file(folder / "model.safetensors")
    model = BertModel(_bert_config(), add_pooling_layer=False).eval()
    model.load_state_dict({name[5:]: tensor for name, tensor in tensors.items() if name.startswith("bert.")})
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([attended])).last_hidden_state[0]
        projected = hidden @ tensors["linear.weight"].t()
    return np.asarray((projected / projected.norm(dim=1, keepdim=True)).numpy())


def write_json(file: Path, value: object) -> None:
    """A JSON file."""
    file.write_text(json.dumps(value))


def _bert_config() -> BertConfig:
    return BertConfig(**BERT, attn_implementation="eager")


def _bert_mlm() -> BertForMaskedLM:
    return BertForMaskedLM(_bert_config())


def _roberta_mlm() -> RobertaForMaskedLM:
    own = {"max_position_embeddings": MAX_LENGTH + 1, "type_vocab_size": 1, "pad_token_id": 0, "layer_norm_eps": 1e-3}
    return RobertaForMaskedLM(RobertaConfig(**{**BERT, **own}))


def _gte_mlm() -> GteForMaskedLM:
    return GteForMaskedLM(GteConfig(**BERT, type_vocab_size=0, pad_token_id=0, layer_norm_eps=1e-3))


def _distilbert_mlm() -> DistilBertForMaskedLM:
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=WIDTH,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.4,
    )
    return DistilBertForMaskedLM(config)
