"""Writes small seeded GLiNER checkpoints with the package `gliner`, and answers for them with it: the oracle."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer, Tokenizer, models, pre_tokenizers, processors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from gliner.model import (
        BiEncoderSpanGLiNER,
        BiEncoderTokenGLiNER,
        UniEncoderSpanGLiNER,
        UniEncoderSpanRelexGLiNER,
        UniEncoderTokenGLiNER,
    )
    from transformers import PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKERS = ("<<ENT>>", "<<SEP>>")
RELATION_MARKER = "<<REL>>"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
POSITIONS = 128
WIDTH = 32
MAX_WORDS = 24
COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 0,
}
DEBERTA = {
    "model_type": "deberta-v2",
    "relative_attention": True,
    "position_biased_input": False,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
}
BERT = {"model_type": "bert", "type_vocab_size": 2}
MODERNBERT = {
    "model_type": "modernbert",
    "pad_token_id": 0,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "local_attention": 16,
}
LABEL_POSITIONS = 32
LABEL_BERT = {**BERT, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": LABEL_POSITIONS}

# What is found: text, label, score, first character, the one after the last.
Found = tuple[str, str, float, int, int]
# Head and tail as first character and the one after the last, relation, score.
FoundRelation = tuple[tuple[int, int], tuple[int, int], str, float]


@dataclass(frozen=True, slots=True)
class Variety:
    """How a checkpoint is written; `config` goes over the common part of its configuration.

    With `labels`, another encoder reads the labels; with `relates`, the model finds relations as well. All but encoders
    is multiplied by `scale`.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=lambda: DEBERTA)
    by_token: bool = False
    seed: int = 0
    labels: Mapping[str, Any] | None = None
    scale: float = 2.5
    relates: bool = False


def write_gliner(folder: Path, variety: Variety) -> Path:
    """A folder as the package saves it, with weights large enough for scores on both sides of every threshold."""
    torch.manual_seed(variety.seed)
    tokenizer = wrapped(TOKENIZERS[variety.encoder["model_type"]]())
    if variety.relates:
        tokenizer.add_special_tokens({"additional_special_tokens": [*MARKERS, RELATION_MARKER]})
    words = len(tokenizer)
    own = {
        "model_name": "org/backbone",
        "hidden_size": WIDTH,
        "max_width": 4,
        "max_len": MAX_WORDS,
        "vocab_size": words,
        "class_token_index": tokenizer.convert_tokens_to_ids(MARKERS[0]),
        "encoder_config": {**COMMON, **variety.encoder, "vocab_size": words},
        **variety.config,
    }
    if variety.relates:
        own |= {"relations_layer": "none", "rel_token_index": tokenizer.convert_tokens_to_ids(RELATION_MARKER)}
    tokenizers = {"tokenizer": tokenizer}
    if variety.labels is not None:
        tokenizers["labels_tokenizer"] = wrapped(TOKENIZERS[variety.labels["model_type"]]())
        own["labels_encoder"] = "org/labels"
        own["labels_encoder_config"] = {
            **COMMON,
            **variety.labels,
            "vocab_size": len(tokenizers["labels_tokenizer"]),
        }
    kind = _class(by_token=variety.by_token, bi=variety.labels is not None, relates=variety.relates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind(kind.config_class(**own), **tokenizers, backbone_from_pretrained=False)
    for name, parameter in model.model.named_parameters():
        if not name.startswith(("token_rep_layer.bert_layer", "token_rep_layer.labels_encoder")):
            parameter.data.mul_(variety.scale)
        if name == "scorer.out_mlp.3.bias":
            parameter.data.add_(0.7)  # or three conditions at once are rarely met
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def gliner_oracle(folder: Path, *, by_token: bool = False, bi: bool = False) -> Callable[..., list[list[Found]]]:
    """What the package finds in each text alone, as a function of texts, labels and the package's options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the oracle's own
        model = _class(by_token=by_token, bi=bi).from_pretrained(str(folder), local_files_only=True)

    def find(texts: Sequence[str], labels: Sequence[str], **options: Any) -> list[list[Found]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers = [model.inference([text], list(labels), **options)[0] for text in texts]
        return [[(e["text"], e["label"], e["score"], e["start"], e["end"]) for e in answer] for answer in answers]

    return find


def relation_oracle(folder: Path) -> Callable[..., tuple[list[Found], list[FoundRelation]]]:
    """The entities and the relations that the package finds in a text, as a function of that, labels and options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the oracle's own
        model = UniEncoderSpanRelexGLiNER.from_pretrained(str(folder), local_files_only=True)

    def find(
        text: str, labels: Sequence[str], relations: Sequence[str], **options: Any
    ) -> tuple[list[Found], list[FoundRelation]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (entities,), (related,) = model.inference([text], list(labels), list(relations), **options)
        places = [tuple((each[end]["start"], each[end]["end"]) for end in ("head", "tail")) for each in related]
        return (
            [(e["text"], e["label"], e["score"], e["start"], e["end"]) for e in entities],
            [(head, tail, each["relation"], each["score"]) for each, (head, tail) in zip(related, places, strict=True)],
        )

    return find


def _class(*, by_token: bool, bi: bool, relates: bool = False) -> Any:
    if relates:
        return UniEncoderSpanRelexGLiNER
    if bi:
        return BiEncoderTokenGLiNER if by_token else BiEncoderSpanGLiNER
    return UniEncoderTokenGLiNER if by_token else UniEncoderSpanGLiNER


def wrapped(own: Tokenizer) -> Any:
    """A tokenizer as transformers wants it, with the markers of GLiNER."""
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=own, additional_special_tokens=list(MARKERS), **names)


def _wordpiece() -> Tokenizer:
    pieces = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,-_", *MARKERS]
    tokenizer: Tokenizer = BertWordPieceTokenizer({piece: at for at, piece in enumerate(pieces)})._tokenizer
    return tokenizer


def _unigram() -> Tokenizer:
    scored = [("▁", -2.0), *((f"▁{letter}", -3.0) for letter in LETTERS), *((each, -3.0) for each in LETTERS + ".,-_")]
    tokenizer = Tokenizer(models.Unigram([*((each, 0.0) for each in (*SPECIAL, *MARKERS)), *scored], unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([*SPECIAL, *MARKERS])
    ends = [("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "bert": _wordpiece,
    "deberta-v2": _unigram,
    "modernbert": _wordpiece,
}
