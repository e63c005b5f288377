"""Writes small seeded classifiers of tokens and of pairs, and answers for them with the pipelines of transformers."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer, Tokenizer, processors

from tiny_bert import SPECIAL, WORDS
from tiny_families import COMMON, CONFIGS, MAX_LENGTH, TOKENIZERS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        BertConfig,
        DistilBertConfig,
        PreTrainedTokenizerFast,
        TokenClassificationPipeline,
        ZeroShotClassificationPipeline,
    )

POSITIONS = 48
BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BERT = {"max_position_embeddings": POSITIONS, "num_hidden_layers": 2}
# Of each family: its special tokens, and what stands before, between and after the texts of a pair.
ENDS = {
    "bert": ("[CLS]", "[SEP]", "[PAD]", "[SEP]"),
    "distilbert": ("[CLS]", "[SEP]", "[PAD]", "[SEP]"),
    "deberta-v2": ("[CLS]", "[SEP]", "[PAD]", "[SEP]"),
    "modernbert": ("[CLS]", "[SEP]", "[PAD]", "[SEP]"),
    "bart": ("<s>", "</s>", "<pad>", "</s> </s>"),
    "roberta": ("<s>", "</s>", "<pad>", "</s> </s>"),
    "xlm-roberta": ("<s>", "</s>", "<pad>", "</s> </s>"),
}
FAMILIES = tuple(ENDS)
OF_TEXTS_ONLY = {"bart"}


def write_classifier(folder: Path, family: str, labels: Sequence[str], *, of_tokens: bool, seed: int = 0) -> Path:
    """A folder as published ones are: config.json, model.safetensors, tokenizer.json."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer(family)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    config = _config(family, tokenizer.get_vocab_size(), named)
    auto = AutoModelForTokenClassification if of_tokens else AutoModelForSequenceClassification
    model = auto.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def change_config(folder: Path, **changes: Any) -> Path:
    """Another value for some keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    return folder


def pipeline_entities(
    folder: Path, family: str, texts: Sequence[str], strategy: str
) -> list[list[tuple[str, float, int, int]]]:
    """Label, score, start and end of what transformers finds, spaces at the ends trimmed off."""
    model = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    pipeline = TokenClassificationPipeline(
        model=model, tokenizer=_fast(folder, family), aggregation_strategy=strategy, device="cpu"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [[each for raw in pipeline(text) if (each := _trimmed(text, raw)) is not None] for text in texts]


def pipeline_classes(
    folder: Path, family: str, texts: Sequence[str], labels: Sequence[str], **options: Any
) -> list[dict[str, float]]:
    """The score of each label of each text as transformers gives it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    pipeline = ZeroShotClassificationPipeline(model=model, tokenizer=_fast(folder, family), device="cpu")
    found = [pipeline(text, list(labels), **options) for text in texts]
    return [dict(zip(each["labels"], each["scores"], strict=True)) for each in found]


def max_length(family: str) -> int:
    """Tokens that a classifier of this family reads here."""
    return POSITIONS if family in {"bert", "distilbert"} else MAX_LENGTH


def _trimmed(text: str, raw: Mapping[str, Any]) -> tuple[str, float, int, int] | None:
    piece = text[raw["start"] : raw["end"]]
    start = raw["start"] + len(piece) - len(piece.lstrip())
    end = start + len(piece.strip())
    return (raw["entity_group"], float(raw["score"]), start, end) if start < end else None


def _tokenizer(family: str) -> Tokenizer:
    first, last, _, between = ENDS[family]
    if family in {"bert", "distilbert"}:
        vocabulary = {word: at for at, word in enumerate((*SPECIAL, *WORDS))}
        tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(vocabulary).to_str())
    else:
        tokenizer = TOKENIZERS[family]()
    specials = [(each, tokenizer.token_to_id(each)) for each in (first, last)]
    kinds = (0, 1) if family == "bert" else (0, 0)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} $B:{kinds[1]} {last}:{kinds[1]}",
        special_tokens=specials,
    )
    return tokenizer


def _config(family: str, vocabulary: int, named: Mapping[str, Any]) -> Any:
    if family == "bert":
        return BertConfig(vocab_size=vocabulary, **{**COMMON, **BERT, **named})
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": POSITIONS}
        return DistilBertConfig(vocab_size=vocabulary, **sizes, **named)
    return CONFIGS[family](vocab_size=vocabulary, **{**COMMON, "num_hidden_layers": 2, **named})


def _fast(folder: Path, family: str) -> Any:
    first, last, pad, _ = ENDS[family]
    unknown = "[UNK]" if family in {"bert", "distilbert"} else None
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if family == "bert" else [])]
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        cls_token=first,
        sep_token=last,
        pad_token=pad,
        unk_token=unknown,
        model_max_length=max_length(family),
        model_input_names=names,
    )
