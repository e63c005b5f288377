"""Families that find entities, classes and relations in texts, each beside its package or transformers' pipeline."""

import argparse
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from family_kit import (
    BATCH,
    LABELS,
    MAX_TOKENS,
    Answer,
    Family,
    Reference,
    Size,
    Work,
    fast,
    save,
    texts,
    tokenizer,
)
from family_texts import DEBERTA

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the libraries' own
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
        BertConfig,
        DebertaV2Config,
        DebertaV2Model,
        TokenClassificationPipeline,
        ZeroShotClassificationPipeline,
    )

WORD: Final = re.compile(r"\w+(?:[-_]\w+)*|\S")
BIO: Final = ("O", *(f"{part}-{label}" for label in LABELS for part in "BI"))
MENTIONS: Final = 6  # known entities of a text, between which relations are looked for
EXTRACT: Final[Mapping[str, Any]] = {"tasks": {"extract": {"labels": "required"}}, "max_sequence_length": 16384}


def _asks(size: Size, **params: Any) -> Work:
    """With a full stop at the end: to a text without one GLiNER2's package adds it, and finds entities in it."""
    work = texts(size, "extract", labels=list(LABELS), **params)
    for item in work.items:
        item["text"] = f"{item['text']}."
    return work


def _scaled(model: Any, encoder: str, factor: float) -> Any:
    """Larger weights behind the encoder, so that scores differ."""
    for name, parameter in model.named_parameters():
        if not name.startswith(encoder):
            parameter.data.mul_(factor)
    return model


def _entities(found: Any) -> Answer:
    return {f"{each['label']} {each['start']} {each['end']}": each["score"] for each in found}


def _write_gliner(folder: Path, size: Size) -> None:
    from gliner.model import UniEncoderSpanGLiNER  # noqa: PLC0415 - for one family only

    torch.manual_seed(0)
    own = fast(tokenizer("<<ENT>>", "<<SEP>>"))
    config = {
        "model_name": "org/backbone",
        "hidden_size": size.width,
        "max_width": 12,
        "max_len": 384,
        "vocab_size": len(own),
        "class_token_index": own.convert_tokens_to_ids("<<ENT>>"),
        "encoder_config": {**DEBERTA, **size.shape, "model_type": "deberta-v2", "vocab_size": len(own)},
    }
    model = UniEncoderSpanGLiNER(
        UniEncoderSpanGLiNER.config_class(**config), tokenizer=own, backbone_from_pretrained=False
    )
    _scaled(model.model, "token_rep_layer.bert_layer", 2.0)
    model.save_pretrained(folder, safe_serialization=True)


def _gliner(folder: Path, work: Work) -> Reference:
    from gliner.model import UniEncoderSpanGLiNER  # noqa: PLC0415 - for one family only

    model, given = UniEncoderSpanGLiNER.from_pretrained(str(folder), local_files_only=True), work.texts
    options = {"threshold": work.params["options"]["threshold"], "batch_size": BATCH}
    return Reference(lambda: model.inference(given, list(LABELS), **options), _entities)


def _write_gliner2(folder: Path, size: Size) -> None:
    from gliner2 import GLiNER2  # noqa: PLC0415 - for one family only
    from gliner2.configuration import ExtractorConfig  # noqa: PLC0415

    torch.manual_seed(0)
    own = fast(tokenizer())
    config = ExtractorConfig(model_name="org/backbone", max_width=12, max_len=384)
    encoder = DebertaV2Config(**{**DEBERTA, **size.shape}, vocab_size=len(own))
    model = _scaled(GLiNER2(config, encoder_config=encoder, tokenizer=own), "encoder.", 1.6)
    model.count_pred[2].bias.data[0] = -100.0  # it always expects entities
    model.save_pretrained(str(folder))


def _gliner2(folder: Path, work: Work) -> Reference:
    from gliner2 import GLiNER2  # noqa: PLC0415 - for one family only

    model, given, threshold = GLiNER2.from_pretrained(str(folder)), work.texts, work.params["options"]["threshold"]
    told = {"format_results": False, "include_confidence": True, "include_spans": True}

    def read(answer: Any) -> Answer:
        rows = ((label, each) for found in answer["entities"] for label, some in found.items() for each in some)
        return {f"{label} {each['start']} {each['end']}": each["confidence"] for label, each in rows}

    return Reference(
        lambda: model.batch_extract_entities(given, list(LABELS), batch_size=BATCH, threshold=threshold, **told), read
    )


def _write_gliclass(folder: Path, size: Size) -> None:
    from gliclass import GLiClassModel, GLiClassModelConfig  # noqa: PLC0415 - for one family only

    torch.manual_seed(0)
    marks = ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>")
    own = fast(tokenizer(*marks))
    label, text, example = (own.convert_tokens_to_ids(each) for each in marks)
    config = GLiClassModelConfig(
        encoder_config={**DEBERTA, **size.shape, "model_type": "deberta-v2", "vocab_size": len(own)},
        encoder_model="org/backbone",
        class_token_index=label,
        text_token_index=text,
        example_token_index=example,
        hidden_size=size.width,
        vocab_size=len(own),
        prompt_first=True,
    )
    save(folder, GLiClassModel(config), own)


def _gliclass(folder: Path, work: Work) -> Reference:
    from gliclass import GLiClassModel  # noqa: PLC0415 - for one family only
    from gliclass import ZeroShotClassificationPipeline as Pipeline  # noqa: PLC0415

    model, own = GLiClassModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pipeline, given = Pipeline(model, own, device="cpu", progress_bar=False, max_length=MAX_TOKENS), work.texts
    how = {"threshold": 0.0, "classification_type": "single-label", "return_hierarchical": True, "batch_size": BATCH}
    return Reference(lambda: pipeline(given, list(LABELS), **how), dict)


def _write_glirel(folder: Path, size: Size) -> None:
    from glirel import GLiREL  # noqa: PLC0415 - for one family only

    torch.manual_seed(0)
    own, backbone = fast(tokenizer("[REL]", "[SEP]")), folder / "backbone"
    encoder = DebertaV2Config(**{**DEBERTA, **size.shape}, vocab_size=len(own))
    save(backbone, DebertaV2Model(encoder), own)
    config = {
        "model_name": str(backbone),
        "fine_tune": True,
        "subtoken_pooling": "first",
        "hidden_size": size.width,
        "rel_mode": "marker",
        "span_marker_mode": "markerv1",
        "label_embed_strategy": "both",
        "scorer": "dot",
        "max_width": 12,
        "max_len": 384,
        "max_entity_pair_distance": None,
        "fixed_relation_types": True,
        "dropout": 0.4,
        "ffn_mul": 4,
        "refine_prompt": False,
        "refine_relation": False,
    }
    model = GLiREL(argparse.Namespace(**config))
    model.token_rep_layer.bert_layer.tokenizer.save_pretrained(folder)
    model.token_rep_layer.bert_layer.model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "glirel_config.json").write_text(json.dumps(vars(model.config)))


def _mentioned(size: Size) -> Work:
    """Every few words one is an entity."""
    work = _asks(size, options={"threshold": 0.0, "top_k": 10})
    for item in work.items:
        words = [match.span() for match in WORD.finditer(str(item["text"]))]
        step = max(1, len(words) // MENTIONS)
        item["metadata"] = {"entities": [{"start": start, "end": end} for start, end in words[::step][:MENTIONS]]}
    return work


def _glirel(folder: Path, work: Work) -> Reference:
    from glirel import GLiREL  # noqa: PLC0415 - for one family only

    model = GLiREL(argparse.Namespace(**json.loads((folder / "glirel_config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.to("cpu")
    model.eval()
    words = [[match.span() for match in WORD.finditer(each)] for each in work.texts]
    tokens = [[text[start:end] for start, end in own] for text, own in zip(work.texts, words, strict=True)]
    known = []
    for item, own, told in zip(work.items, words, tokens, strict=True):
        places = [own.index((each["start"], each["end"])) for each in (item["metadata"] or {})["entities"]]
        known.append([[at, at, "thing", told[at]] for at in places])
    options = {"threshold": 0.0, "top_k": 10}

    def once() -> list[Any]:
        return [
            each
            for at in range(0, len(tokens), BATCH)
            for each in model.batch_predict_relations(
                tokens[at : at + BATCH], list(LABELS), ner=known[at : at + BATCH], **options
            )
        ]

    def told_of(found: Any) -> Answer:
        return {
            f"{each['label']} {' '.join(each['head_text'])} {' '.join(each['tail_text'])}": each["score"]
            for each in found
        }

    return Reference(once, told_of)


def _write_classifier(auto: Any, config: Any) -> Any:
    def write(folder: Path, size: Size) -> None:
        torch.manual_seed(0)
        own = tokenizer()
        save(folder, auto.from_config(config(size, own.get_vocab_size())), fast(own))

    return write


def _tokens_config(size: Size, words: int) -> Any:
    labels = {"id2label": dict(enumerate(BIO)), "label2id": {label: at for at, label in enumerate(BIO)}}
    return BertConfig(**size.shape, vocab_size=words, **labels, initializer_range=0.08)


def _nli_config(size: Size, words: int) -> Any:
    labels = ("entailment", "neutral", "contradiction")
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    return DebertaV2Config(**{**DEBERTA, **size.shape}, vocab_size=words, **named, initializer_range=0.08)


def _token_classifier(folder: Path, work: Work) -> Reference:
    model, given = AutoModelForTokenClassification.from_pretrained(folder).eval(), work.texts
    own = AutoTokenizer.from_pretrained(folder)
    pipeline = TokenClassificationPipeline(model=model, tokenizer=own, aggregation_strategy="simple", device="cpu")

    def told(found: Any) -> Answer:
        return {f"{each['entity_group']} {each['start']} {each['end']}": float(each["score"]) for each in found}

    return Reference(lambda: list(pipeline(given, batch_size=BATCH)), told)


def _nli(folder: Path, work: Work) -> Reference:
    model, given = AutoModelForSequenceClassification.from_pretrained(folder).eval(), work.texts
    pipeline = ZeroShotClassificationPipeline(
        model=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )
    template = work.params["options"]["hypothesis_template"]

    def told(found: Any) -> Answer:
        return dict(zip(found["labels"], found["scores"], strict=True))

    return Reference(lambda: list(pipeline(given, list(LABELS), hypothesis_template=template, batch_size=BATCH)), told)


def _entry(length: int = 16384, **extract: str) -> Any:
    return lambda _: {"tasks": {"extract": extract}, "max_sequence_length": length}


FINDERS: Final = (
    Family(
        "gliner",
        "gliner",
        _write_gliner,
        lambda size: _asks(size, options={"threshold": 0.6}),
        _gliner,
        _entry(),
    ),
    Family(
        "gliner2",
        "gliner2",
        _write_gliner2,
        lambda size: _asks(size, options={"threshold": 0.6}),
        _gliner2,
        _entry(labels="required"),
    ),
    Family("gliclass", "gliclass", _write_gliclass, _asks, _gliclass, _entry(MAX_TOKENS, labels="required")),
    Family("glirel", "glirel", _write_glirel, _mentioned, _glirel, _entry(labels="required", entities="required")),
    Family(
        "token-classifier",
        "token_classifier",
        _write_classifier(AutoModelForTokenClassification, _tokens_config),
        lambda size: texts(size, "extract", options={"aggregation_strategy": "simple"}),
        _token_classifier,
        _entry(MAX_TOKENS, labels="optional"),
    ),
    Family(
        "nli",
        "nli",
        _write_classifier(AutoModelForSequenceClassification, _nli_config),
        lambda size: _asks(size, options={"hypothesis_template": "This example is {}."}),
        _nli,
        _entry(MAX_TOKENS, labels="required"),
    ),
)
