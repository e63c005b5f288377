"""Writes small seeded GLiREL checkpoints with the package `glirel`, and answers for them with it: the oracle."""

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sie_server.adapters.shared.gliner_reader import WORD
from tiny_gliner import BERT, COMMON, DEBERTA, TOKENIZERS, WIDTH, wrapped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from glirel import GLiREL
    from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model

MAX_WORDS = 24
MODELS: Mapping[str, Any] = {"bert": (BertConfig, BertModel), "deberta-v2": (DebertaV2Config, DebertaV2Model)}

# What is found: head and tail as first character and the one after the last, relation, score.
Found = tuple[tuple[int, int], tuple[int, int], str, float]


@dataclass(frozen=True, slots=True)
class Variety:
    """How a checkpoint is written; `config` goes over the common part of its configuration."""

    config: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=lambda: DEBERTA)
    seed: int = 0


def write_glirel(folder: Path, variety: Variety) -> Callable[..., list[Found]]:
    """A folder as docs/models/gliner.md has a published model converted, and the package's own answers for it.

    Weights are large enough for scores on both sides of every threshold.
    """
    torch.manual_seed(variety.seed)
    backbone = folder.parent / f"{folder.name}-backbone"
    tokenizer = wrapped(TOKENIZERS[variety.encoder["model_type"]]())
    config_class, model_class = MODELS[variety.encoder["model_type"]]
    own = config_class(**{**COMMON, **variety.encoder, "vocab_size": len(tokenizer)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model_class(own).save_pretrained(backbone)
        tokenizer.save_pretrained(backbone)
        model = GLiREL(argparse.Namespace(**_config(backbone, variety)))
    for name, parameter in model.named_parameters():
        if not name.startswith("token_rep_layer.bert_layer"):
            parameter.data.mul_(2.0)
    encoder = model.token_rep_layer.bert_layer
    folder.mkdir()
    encoder.tokenizer.save_pretrained(folder)
    encoder.model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "glirel_config.json").write_text(json.dumps(vars(model.config)))
    model.to("cpu")
    model.eval()

    def find(text: str, labels: Sequence[str], spans: Sequence[tuple[int, int]], **options: Any) -> list[Found]:
        words = [match.span() for match in WORD.finditer(text)]
        firsts, ends = [start for start, _ in words], [end for _, end in words]
        known = [[firsts.index(start), ends.index(end), "thing", text[start:end]] for start, end in spans]
        tokens = [text[start:end] for start, end in words]
        found = model.predict_relations(tokens, list(labels), ner=known, **options)
        return [
            (_place(words, each["head_pos"]), _place(words, each["tail_pos"]), each["label"], each["score"])
            for each in found
        ]

    return find


def _place(words: Sequence[tuple[int, int]], position: Sequence[int]) -> tuple[int, int]:
    return words[position[0]][0], words[position[1] - 1][1]


def _config(backbone: Path, variety: Variety) -> dict[str, Any]:
    return {
        "model_name": str(backbone),
        "fine_tune": True,
        "subtoken_pooling": "first",
        "hidden_size": WIDTH,
        "rel_mode": "marker",
        "span_marker_mode": "markerv1",
        "label_embed_strategy": "both",
        "scorer": "dot",
        "max_width": 12,
        "max_len": MAX_WORDS,
        "max_entity_pair_distance": None,
        "fixed_relation_types": True,
        "dropout": 0.4,
        "ffn_mul": 4,
        "refine_prompt": False,
        "refine_relation": False,
        **variety.config,
    }


__all__ = ["BERT", "Found", "Variety", "write_glirel"]
