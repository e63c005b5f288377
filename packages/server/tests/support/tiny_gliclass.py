"""Writes small seeded GLiClass checkpoints with the package `gliclass`, and answers for them with it: the oracle."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tiny_families import TOKENIZERS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from gliclass import GLiClassModel, GLiClassModelConfig, ZeroShotClassificationPipeline
    from transformers import PreTrainedTokenizerFast

MARKERS = ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>")
SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
WIDTH = 32
COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "max_position_embeddings": 512,
}
DEBERTA = {
    "model_type": "deberta-v2",
    "relative_attention": True,
    "position_biased_input": False,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "type_vocab_size": 0,
}
MODERNBERT = {
    "model_type": "modernbert",
    "pad_token_id": 0,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "local_attention": 16,
}


@dataclass(frozen=True, slots=True)
class Variety:
    """How a checkpoint is written; `config` goes over the common part of its configuration."""

    config: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=lambda: DEBERTA)
    seed: int = 0


def write_gliclass(folder: Path, variety: Variety) -> Path:
    """A folder as the package saves it, with weights large enough for scores that differ."""
    torch.manual_seed(variety.seed)
    own = TOKENIZERS["deberta-v2"]()
    own.add_special_tokens(list(MARKERS))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, **SPECIAL)
    label, text, example = (tokenizer.convert_tokens_to_ids(each) for each in MARKERS)
    config = GLiClassModelConfig(
        **{
            "encoder_config": {**COMMON, **variety.encoder, "vocab_size": len(tokenizer)},
            "encoder_model": "org/backbone",
            "class_token_index": label,
            "text_token_index": text,
            "example_token_index": example,
            "hidden_size": WIDTH,
            "vocab_size": len(tokenizer),
            "initializer_range": 0.3,
            **variety.config,
        }
    )
    model = GLiClassModel(config)
    for name, parameter in model.named_parameters():
        if not name.startswith("model.encoder_model."):
            parameter.data.mul_(0.4).add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gliclass_oracle(folder: Path) -> Callable[..., list[dict[str, float]]]:
    """The score of each label of each text alone: a function of texts, labels, and whether a text may have several."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GLiClassModel.from_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    pipeline = ZeroShotClassificationPipeline(model, tokenizer, device="cpu", progress_bar=False)

    def scores(texts: Sequence[str], labels: Sequence[str], *, multi_label: bool) -> list[dict[str, float]]:
        kind = "multi-label" if multi_label else "single-label"
        found = [
            pipeline(text, list(labels), threshold=0.0, classification_type=kind, return_hierarchical=True)
            for text in texts
        ]
        return [each[0] for each in found]

    return scores
