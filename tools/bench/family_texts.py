"""Families that make vectors and scores of texts, each beside the code that its authors use."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from corpus import texts_of
from family_kit import (
    BATCH,
    MAX_TOKENS,
    Answer,
    Family,
    Reference,
    Size,
    Work,
    fast,
    in_batches,
    save,
    texts,
    tokenizer,
    vector,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the libraries' own
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertConfig,
        DebertaV2Config,
        ModernBertConfig,
        NomicBertConfig,
        Qwen3Config,
        XLMRobertaConfig,
    )

TOKEN_DIMS: Final = 128  # of ColBERT's vectors
LANGUAGE_WORDS: Final = 151_669  # of Qwen3's language head
ROBERTA: Final = {"[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>", "[UNK]": "<unk>"}
PREFIX: Final = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION: Final = "Given a web search query, retrieve relevant passages that answer the query"
DEBERTA: Final[Mapping[str, Any]] = {
    "relative_attention": True,
    "position_biased_input": False,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "type_vocab_size": 0,
    "max_position_embeddings": MAX_TOKENS,
}
MODERNBERT: Final = {
    "pad_token_id": 0,
    "cls_token_id": 101,
    "sep_token_id": 102,
    "bos_token_id": 101,
    "eos_token_id": 102,
}


def _config(kind: Any, size: Size, **more: Any) -> Any:
    own = tokenizer()
    return kind(**{**size.shape, "vocab_size": own.get_vocab_size(), "pad_token_id": 0, **more})


def _qwen3(size: Size, **more: Any) -> Any:
    heads = max(2, size.width // 64)
    return _config(Qwen3Config, size, num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=64, **more)


def _write(auto: Any, configure: Callable[[Size], Any]) -> Callable[[Path, Size], None]:
    def write(folder: Path, size: Size) -> None:
        torch.manual_seed(0)
        config = configure(size)
        save(folder, auto.from_config(config), fast(tokenizer(), types=config.model_type == "bert"))

    return write


def _dense(name: str, configure: Callable[[Size], Any], pooling: str = "mean") -> Family:
    """One vector a text, beside sentence-transformers."""

    def reference(folder: Path, work: Work) -> Reference:
        from sentence_transformers import SentenceTransformer, models  # noqa: PLC0415 - seconds, for one side only

        transformer = models.Transformer(str(folder), max_seq_length=MAX_TOKENS)
        pool = models.Pooling(transformer.get_word_embedding_dimension(), pooling)
        model = SentenceTransformer(modules=[transformer, pool, models.Normalize()], device="cpu")
        given = work.texts
        return Reference(lambda: model.encode(given, batch_size=BATCH), partial(vector, "dense"))

    return Family(
        name,
        "dense",
        _write(AutoModel, configure),
        texts,
        reference,
        lambda size: {"tasks": {"encode": {"dense": {"dim": size.width}}}, "max_sequence_length": MAX_TOKENS},
        {"pooling": {"lasttoken": "last"}.get(pooling, pooling), "normalize": True},
    )


def _write_bge_m3(folder: Path, size: Size) -> None:
    torch.manual_seed(0)
    own = tokenizer(named=ROBERTA)
    shape = {"max_position_embeddings": MAX_TOKENS + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    save(folder, AutoModel.from_config(_config(XLMRobertaConfig, size, **shape)), fast(own, names))
    for name, width in (("sparse_linear", 1), ("colbert_linear", size.width)):
        save_file(
            {"weight": torch.randn(width, size.width) / 8, "bias": torch.zeros(width)}, folder / f"{name}.safetensors"
        )


def _bge_m3(folder: Path, work: Work) -> Reference:
    """As FlagEmbedding does it: batches by length, all three outputs, weights of words in a dict."""
    model, own = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    words, tokens = (load_file(folder / f"{name}_linear.safetensors") for name in ("sparse", "colbert"))
    linear, unit = torch.nn.functional.linear, torch.nn.functional.normalize
    unused = {own.cls_token_id, own.sep_token_id, own.pad_token_id, own.unk_token_id}

    def read(batch: list[str]) -> list[Any]:
        given = own(
            batch,
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        hidden = model(**given).last_hidden_state
        dense = unit(hidden[:, 0], dim=-1).numpy()
        weights = linear(hidden, words["weight"], words["bias"]).relu()[..., 0].numpy()
        vectors = unit(
            linear(hidden[:, 1:], tokens["weight"], tokens["bias"]) * given["attention_mask"][:, 1:, None], dim=-1
        ).numpy()
        answers = []
        for at, ids in enumerate(given["input_ids"].tolist()):
            largest: dict[int, float] = defaultdict(float)
            for weight, token in zip(weights[at].tolist(), ids, strict=True):
                if token not in unused and weight > largest[token]:
                    largest[token] = weight
            kept = {token: weight for token, weight in largest.items() if weight > 0}
            length = int(given["attention_mask"][at].sum())
            answers.append((dense[at], kept, vectors[at, : length - 1]))
        return answers

    def told(answer: Any) -> Answer:
        dense, weights, vectors = answer
        sparse = vector("sparse", list(weights.values()), list(weights))
        return {**vector("dense", dense), **sparse, **vector("multivector", vectors)}

    given = work.texts
    return Reference(lambda: in_batches(given, read), told)


def _splade(folder: Path, work: Work) -> Reference:
    from sentence_transformers import SparseEncoder  # noqa: PLC0415 - seconds, for one side only
    from sentence_transformers.sparse_encoder.models import MLMTransformer, SpladePooling  # noqa: PLC0415

    model = SparseEncoder(
        modules=[MLMTransformer(str(folder), max_seq_length=MAX_TOKENS), SpladePooling("max")], device="cpu"
    )
    given = work.texts

    def once() -> list[Any]:
        rows = model.encode(given, batch_size=BATCH, convert_to_sparse_tensor=True, save_to_cpu=True).coalesce()
        (numbers, words), values = rows.indices().numpy(), rows.values().numpy()
        ends = np.searchsorted(numbers, np.arange(1, len(given)))
        return list(zip(np.split(words, ends), np.split(values, ends), strict=True))

    return Reference(once, lambda answer: vector("sparse", answer[1], answer[0].tolist()))


def _write_colbert(folder: Path, size: Size) -> None:
    _write(AutoModel, lambda size: _config(BertConfig, size))(folder, size)
    file = folder / "model.safetensors"
    tensors = {f"bert.{name}": each for name, each in load_file(file).items()}
    save_file({**tensors, "linear.weight": torch.randn(TOKEN_DIMS, size.width)}, file, metadata={"format": "pt"})


def _colbert(folder: Path, work: Work) -> Reference:
    """Documents as PyLate and the authors' code read them: a marker behind the first token, batches by length."""
    tensors, own = load_file(folder / "model.safetensors"), AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_config(BertConfig.from_pretrained(folder)).eval()
    model.load_state_dict(
        {name.removeprefix("bert."): each for name, each in tensors.items() if name != "linear.weight"}
    )
    marker, given = own.convert_tokens_to_ids("[unused1]"), work.texts
    punctuation = torch.tensor([own.convert_tokens_to_ids(each) for each in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"])

    def read(batch: list[str]) -> list[Any]:
        found = own(batch, padding=True, truncation=True, max_length=MAX_TOKENS - 1, return_tensors="pt")
        ids, mask = found["input_ids"], found["attention_mask"]
        ids = torch.cat([ids[:, :1], torch.full_like(ids[:, :1], marker), ids[:, 1:]], dim=1)
        mask = torch.cat([mask[:, :1], mask], dim=1)
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        vectors = torch.nn.functional.normalize(hidden @ tensors["linear.weight"].T, dim=-1)
        kept = mask.bool() & ~torch.isin(ids, punctuation)
        return [vectors[at][kept[at]].numpy() for at in range(len(batch))]

    return Reference(lambda: in_batches(given, read), partial(vector, "multivector"))


def _pairs(size: Size) -> Work:
    work = texts(size, "score")
    return Work("score", work.items, query=texts_of(8)[3][:60])


def _score(found: Any) -> Answer:
    return {"score": float(found)}


def _cross_encoder(folder: Path, work: Work) -> Reference:
    from sentence_transformers import CrossEncoder  # noqa: PLC0415 - seconds, for one side only

    model = CrossEncoder(str(folder), max_length=MAX_TOKENS, device="cpu")
    pairs = [(work.query, each) for each in work.texts]
    return Reference(lambda: model.predict(pairs, batch_size=BATCH), _score)


def _reranker(name: str, configure: Callable[[Size], Any]) -> Family:
    entry = {"tasks": {"score": {}}, "max_sequence_length": MAX_TOKENS}
    return Family(
        name,
        "cross_encoder",
        _write(AutoModelForSequenceClassification, configure),
        _pairs,
        _cross_encoder,
        lambda _: entry,
    )


def _judge(folder: Path, work: Work) -> Reference:
    """As the model's card has it, batches by length."""
    model, own = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder, padding_side="left"),
    )
    before, behind = (own.encode(each, add_special_tokens=False) for each in (PREFIX, SUFFIX))
    yes, no = (own.convert_tokens_to_ids(each) for each in ("yes", "no"))
    room = MAX_TOKENS - len(before) - len(behind)
    pairs = [f"<Instruct>: {INSTRUCTION}\n<Query>: {work.query}\n<Document>: {each}" for each in work.texts]

    def read(batch: list[str]) -> list[Any]:
        found = own(batch, truncation=True, max_length=room, return_attention_mask=False, return_token_type_ids=False)
        framed = [before + ids + behind for ids in found["input_ids"]]
        logits = model(**own.pad({"input_ids": framed}, padding=True, return_tensors="pt")).logits[:, -1]
        scores = torch.stack([logits[:, no], logits[:, yes]], dim=1).log_softmax(dim=1)[:, 1].exp()
        return scores.tolist()

    return Reference(lambda: in_batches(pairs, read), _score)


def _write_judge(folder: Path, size: Size) -> None:
    words = LANGUAGE_WORDS if size.width > 64 else tokenizer().get_vocab_size()  # noqa: PLR2004 - of a test's model
    _write(AutoModelForCausalLM, lambda size: _qwen3(size, vocab_size=words, tie_word_embeddings=True))(folder, size)


TEXT_FAMILIES: Final = (
    _dense("bert", lambda size: _config(BertConfig, size)),
    _dense("deberta", lambda size: _config(DebertaV2Config, size, **DEBERTA)),
    _dense("modernbert", lambda size: _config(ModernBertConfig, size, **MODERNBERT)),
    _dense("nomic-bert", lambda size: _config(NomicBertConfig, size)),
    _dense("qwen3-embedding", _qwen3, "lasttoken"),
    Family(
        "bge-m3",
        "bge_m3",
        _write_bge_m3,
        lambda size: texts(size, output_types=["dense", "sparse", "multivector"]),
        _bge_m3,
        lambda size: {
            "tasks": {
                "encode": {
                    "dense": {"dim": size.width},
                    "sparse": {"dim": tokenizer().get_vocab_size()},
                    "multivector": {"dim": size.width},
                }
            },
            "max_sequence_length": MAX_TOKENS,
        },
    ),
    Family(
        "splade",
        "sparse",
        _write(AutoModelForMaskedLM, lambda size: _config(BertConfig, size)),
        texts,
        _splade,
        lambda _: {
            "tasks": {"encode": {"sparse": {"dim": tokenizer().get_vocab_size()}}},
            "max_sequence_length": MAX_TOKENS,
        },
    ),
    Family(
        "colbert",
        "colbert",
        _write_colbert,
        texts,
        _colbert,
        lambda _: {"tasks": {"encode": {"multivector": {"dim": TOKEN_DIMS}}}, "max_sequence_length": MAX_TOKENS},
        {"query_marker": "[unused0]", "doc_marker": "[unused1]", "skip_punctuation": True},
    ),
    _reranker("bert-reranker", lambda size: _config(BertConfig, size, num_labels=1)),
    _reranker("modernbert-reranker", lambda size: _config(ModernBertConfig, size, **MODERNBERT, num_labels=1)),
    Family(
        "qwen3-reranker",
        "judge",
        _write_judge,
        _pairs,
        _judge,
        lambda _: {"tasks": {"score": {}}, "max_sequence_length": MAX_TOKENS},
        {
            "prefix": PREFIX,
            "suffix": SUFFIX,
            "query_template": "<Instruct>: {instruction}\n<Query>: {text}",
            "doc_template": "<Document>: {text}",
            "default_instruction": INSTRUCTION,
        },
    ),
)
