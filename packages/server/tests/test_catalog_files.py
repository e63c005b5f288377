from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sie_protocol.catalog import Catalog, ExtractTask, Inputs, ModelConfig, VectorTask
from sie_protocol.items import EncodeParams, ExtractParams
from sie_server.adapters.gliner import Choice, read_choice
from sie_server.catalog_files import read_catalog, select
from sie_server.core.extraction import resolve_extract
from sie_server.core.options import resolve_encode
from sie_server.core.scoring import resolve_score
from sie_server.engine.slots import Slots
from sie_server.settings import Settings


@cache
def own_catalog() -> Catalog:
    own = Settings()
    return read_catalog(own.models_dir, own.bundles_dir)


def published(name: str) -> ModelConfig:
    model = own_catalog().find(name)
    assert model is not None
    return model


FOR_QUERIES = "Represent this sentence for searching relevant passages: T"
FOR_CHINESE = "为这个句子生成表示以用于检索相关文章：T"  # noqa: RUF001 - a full-width colon, as published
FOR_EVIDENCE = "Represent the query for retrieving evidence documents: "
TASK = "Given a web search query, retrieve relevant passages that answer the query"
# id: dense dim, pooling, what becomes of a query "T", and of a document
FAMILY = {
    "intfloat/e5-small-v2": (384, "mean", "query: T", "passage: T"),
    "intfloat/e5-base-v2": (768, "mean", "query: T", "passage: T"),
    "intfloat/e5-large-v2": (1024, "mean", "query: T", "passage: T"),
    "BAAI/bge-small-en-v1.5": (384, "cls", FOR_QUERIES, "T"),
    "BAAI/bge-base-en-v1.5": (768, "cls", FOR_QUERIES, "T"),
    "BAAI/bge-large-en-v1.5": (1024, "cls", FOR_QUERIES, "T"),
    "thenlper/gte-small": (384, "mean", "T", "T"),
    "thenlper/gte-base": (768, "mean", "T", "T"),
    "thenlper/gte-large": (1024, "mean", "T", "T"),
    "Snowflake/snowflake-arctic-embed-s": (384, "cls", FOR_QUERIES, "T"),
    "WhereIsAI/UAE-Large-V1": (1024, "cls", FOR_QUERIES, "T"),
    "mixedbread-ai/mxbai-embed-large-v1": (1024, "cls", FOR_QUERIES, "T"),
    "BAAI/bge-small-zh-v1.5": (512, "cls", FOR_CHINESE, "T"),
    "BAAI/bge-base-zh-v1.5": (768, "cls", FOR_CHINESE, "T"),
    "BAAI/bge-large-zh-v1.5": (1024, "cls", FOR_CHINESE, "T"),
    "Snowflake/snowflake-arctic-embed-xs": (384, "cls", FOR_QUERIES, "T"),
    "Snowflake/snowflake-arctic-embed-m": (768, "cls", FOR_QUERIES, "T"),
    "Snowflake/snowflake-arctic-embed-m-v1.5": (768, "cls", FOR_QUERIES, "T"),
    "Snowflake/snowflake-arctic-embed-l": (1024, "cls", FOR_QUERIES, "T"),
    "sentence-transformers/multi-qa-MiniLM-L6-cos-v1": (384, "mean", "T", "T"),
    "sentence-transformers/all-distilroberta-v1": (768, "mean", "T", "T"),
    "ibm-granite/granite-embedding-30m-english": (384, "cls", "T", "T"),
    "ibm-granite/granite-embedding-125m-english": (768, "cls", "T", "T"),
    "ibm-granite/granite-embedding-107m-multilingual": (384, "cls", "T", "T"),
    "ibm-granite/granite-embedding-278m-multilingual": (768, "cls", "T", "T"),
}
# The same of families beyond BERT; and the length in front.
BEYOND = {
    "intfloat/multilingual-e5-small": (512, 384, "mean", "query: T", "passage: T"),
    "intfloat/multilingual-e5-base": (512, 768, "mean", "query: T", "passage: T"),
    "intfloat/multilingual-e5-large": (512, 1024, "mean", "query: T", "passage: T"),
    "intfloat/multilingual-e5-large-instruct": (512, 1024, "mean", f"Instruct: {TASK}\nQuery: T", "T"),
    "Snowflake/snowflake-arctic-embed-l-v2.0": (8192, 1024, "cls", "query: T", "T"),
    "Alibaba-NLP/gte-modernbert-base": (8192, 768, "cls", "T", "T"),
    "nomic-ai/modernbert-embed-base": (8192, 768, "mean", "search_query: T", "search_document: T"),
    "ibm-granite/granite-embedding-english-r2": (8192, 768, "cls", "T", "T"),
    "ibm-granite/granite-embedding-small-english-r2": (8192, 384, "cls", "T", "T"),
    "ibm-granite/granite-embedding-97m-multilingual-r2": (32768, 384, "cls", "T", "T"),
    "Qwen/Qwen3-Embedding-0.6B": (32768, 1024, "last", f"Instruct: {TASK}\nQuery:T", "T"),
    "Qwen/Qwen3-Embedding-4B": (32768, 2560, "last", f"Instruct: {TASK}\nQuery:T", "T"),
    "Qwen/Qwen3-Embedding-8B": (32768, 4096, "last", f"Instruct: {TASK}\nQuery:T", "T"),
    "intfloat/e5-mistral-7b-instruct": (4096, 4096, "last", f"Instruct: {TASK}\nQuery: T", "T"),
    "Alibaba-NLP/gte-Qwen2-1.5B-instruct": (32768, 1536, "last", f"Instruct: {TASK}\nQuery: T", "T"),
    "Alibaba-NLP/gte-Qwen2-7B-instruct": (32768, 3584, "last", f"Instruct: {TASK}\nQuery: T", "T"),
    "Linq-AI-Research/Linq-Embed-Mistral": (32768, 4096, "last", f"Instruct: {TASK}\nQuery: T", "T"),
    "Salesforce/SFR-Embedding-Mistral": (4096, 4096, "last", f"Instruct: {TASK}\nQuery: T", "T"),
    "Salesforce/SFR-Embedding-2_R": (32768, 4096, "last", f"Instruct: {TASK}\nQuery: T", "T"),
    "lightonai/modernbert-embed-large": (8192, 1024, "mean", "search_query: T", "search_document: T"),
    "sentence-transformers/all-MiniLM-L6-v2": (256, 384, "mean", "T", "T"),
    "sentence-transformers/all-MiniLM-L12-v2": (128, 384, "mean", "T", "T"),
    "sentence-transformers/LaBSE": (256, 768, "cls", "T", "T"),
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": (128, 384, "mean", "T", "T"),
    "sentence-transformers/msmarco-distilbert-base-tas-b": (512, 768, "cls", "T", "T"),
    "nomic-ai/nomic-embed-text-v1": (2048, 768, "mean", "search_query: T", "search_document: T"),
    "nomic-ai/nomic-embed-text-v1.5": (2048, 768, "mean", "search_query: T", "search_document: T"),
    "nomic-ai/nomic-embed-text-v2-moe": (2048, 768, "mean", "search_query: T", "search_document: T"),
    "Alibaba-NLP/gte-base-en-v1.5": (8192, 768, "cls", "T", "T"),
    "Alibaba-NLP/gte-large-en-v1.5": (8192, 1024, "cls", "T", "T"),
    "Snowflake/snowflake-arctic-embed-m-v2.0": (8192, 768, "cls", "query: T", "T"),
    "NovaSearch/stella_en_400M_v5": (512, 1024, "mean", f"Instruct: {TASK}.\nQuery: T", "T"),
    "NovaSearch/stella_en_1.5B_v5": (512, 1024, "mean", f"Instruct: {TASK}.\nQuery: T", "T"),
    "google/embeddinggemma-300m": (2048, 768, "mean", "task: search result | query: T", "title: none | text: T"),
    "nvidia/llama-embed-nemotron-8b": (8192, 4096, "mean", f"Instruct: {TASK}\nQuery: T", "T"),
    "nvidia/llama-nemotron-embed-1b-v2": (8192, 2048, "mean", "query: T", "passage: T"),
    "jinaai/jina-embeddings-v3": (8192, 1024, "mean", f"{FOR_EVIDENCE}T", "Represent the document for retrieval: T"),
    "jinaai/jina-embeddings-v2-small-en": (8192, 512, "mean", "T", "T"),
    "jinaai/jina-embeddings-v2-base-en": (8192, 768, "mean", "T", "T"),
    "jinaai/jina-embeddings-v2-base-code": (8192, 768, "mean", "T", "T"),
    "jinaai/jina-embeddings-v2-base-de": (8192, 768, "mean", "T", "T"),
    "jinaai/jina-embeddings-v2-base-es": (8192, 768, "mean", "T", "T"),
    "jinaai/jina-embeddings-v2-base-zh": (8192, 768, "mean", "T", "T"),
    "sentence-transformers/all-mpnet-base-v2": (384, 768, "mean", "T", "T"),
    "sentence-transformers/multi-qa-mpnet-base-cos-v1": (512, 768, "mean", "T", "T"),
    "sentence-transformers/multi-qa-mpnet-base-dot-v1": (512, 768, "cls", "T", "T"),
    "sentence-transformers/paraphrase-mpnet-base-v2": (512, 768, "mean", "T", "T"),
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2": (128, 768, "mean", "T", "T"),
}
# Published for the dot product of vectors, without normalisation.
DOT = {
    "sentence-transformers/msmarco-distilbert-base-tas-b",
    "sentence-transformers/multi-qa-mpnet-base-dot-v1",
}
# Published without normalisation; of all others the vectors have unit length.
AS_THEY_ARE = {
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/paraphrase-mpnet-base-v2",
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    *DOT,
}
# The shortest good beginning of a vector, for models trained so that there is one.
SHORTEST = {
    "mixedbread-ai/mxbai-embed-large-v1": 512,
    "Qwen/Qwen3-Embedding-0.6B": 32,
    "Qwen/Qwen3-Embedding-4B": 32,
    "Qwen/Qwen3-Embedding-8B": 32,
    "Snowflake/snowflake-arctic-embed-m-v1.5": 256,
    "lightonai/modernbert-embed-large": 256,
    "Snowflake/snowflake-arctic-embed-m-v2.0": 256,
    "nomic-ai/nomic-embed-text-v2-moe": 256,
    "google/embeddinggemma-300m": 128,
    "nvidia/llama-nemotron-embed-1b-v2": 384,
    "jinaai/jina-embeddings-v3": 32,
}
RECIPES = {name: (512, *facts) for name, facts in FAMILY.items()} | BEYOND


@pytest.mark.parametrize(("name", "facts"), RECIPES.items())
def test_published_models_keep_their_published_recipe(name: str, facts: tuple[int, int, str, str, str]) -> None:
    model = published(name)
    length, dim, pooling, query, document = facts
    options = model.profiles["default"].adapter_options
    assert (model.dims, options["pooling"], options["normalize"]) == ({"dense": dim}, pooling, name not in AS_THEY_ARE)
    assert model.max_sequence_length == length
    assert model.tasks.encode is not None
    assert model.tasks.encode.dense == VectorTask(dim, SHORTEST.get(name))
    assert options.get("similarity", "cosine") == ("dot" if name in DOT else "cosine")
    as_query = EncodeParams(options={"is_query": True})
    assert resolve_encode(model, as_query).prompt.apply("T") == query
    assert resolve_encode(model, EncodeParams()).prompt.apply("T") == document


# id: length, what becomes of a query "T" and of a document, and where the prompt of each ends
INSTRUCTED = {
    "GritLM/GritLM-7B": (
        4096,
        f"<|user|>\n{TASK}\n<|embed|>\nT",
        "<|embed|>\nT",
        {"query_prompt_end": "<|embed|>\n", "doc_prompt_end": "<|embed|>\n"},
    ),
    "nvidia/NV-Embed-v2": (
        32768,
        "Instruct: Given a question, retrieve passages that answer the question\nQuery: T",
        "T",
        {"query_prompt_end": "\nQuery: ", "start_token_counts": False, "end_token": "</s>"},
    ),
}


@pytest.mark.parametrize(("name", "facts"), INSTRUCTED.items())
def test_models_that_leave_their_instruction_out_know_where_it_ends(
    name: str, facts: tuple[int, str, str, dict[str, Any]]
) -> None:
    model = published(name)
    length, query, document, ends = facts
    options = model.profiles["default"].adapter_options
    assert (model.max_sequence_length, model.dims) == (length, {"dense": 4096})
    assert {key: options[key] for key in options if key.endswith(("_end", "_token", "_counts"))} == ends
    assert resolve_encode(model, EncodeParams(options={"is_query": True})).prompt.apply("T") == query
    assert resolve_encode(model, EncodeParams()).prompt.apply("T") == document


def test_every_model_of_one_vector_a_token_has_a_profile_of_one_vector_a_text() -> None:
    catalog = own_catalog()
    served = Slots(select(catalog, "default", ()))
    by_token = ("colbert", "colvision")
    found = {model.sie_id for model in catalog.models.values() if model.profiles["default"].adapter in by_token}
    assert len(found) == len(COLBERT) + len(PAGES)
    for name in found:
        choice = served.find(f"{name}:muvera", {})
        assert choice.slot.name == name
        assert choice.model.dims["dense"] == 10_240
        scored = resolve_score(choice.model, None, {})
        assert (scored.weights, scored.similarity) == ({"dense": 1.0}, "dot")


def test_an_instruction_of_the_caller_takes_the_place_of_the_default_one() -> None:
    model = published("intfloat/multilingual-e5-large-instruct")
    asked = EncodeParams(instruction="Find duplicates", options={"is_query": True})
    assert resolve_encode(model, asked).prompt.apply("T") == "Instruct: Find duplicates\nQuery: T"


def test_stella_has_a_prompt_for_answers_and_one_for_similar_texts() -> None:
    catalog = own_catalog()
    for name in ("NovaSearch/stella_en_400M_v5", "NovaSearch/stella_en_1.5B_v5"):
        model = catalog.find(name)
        assert model is not None
        asked = EncodeParams(options={"is_query": True, "profile": "s2s"})
        assert (
            resolve_encode(model, asked).prompt.apply("T") == "Instruct: Retrieve semantically similar text.\nQuery: T"
        )


def test_models_made_of_qwen2_look_both_ways_whatever_their_configuration_says() -> None:
    catalog = own_catalog()
    says = {
        model.sie_id for model in catalog.models.values() if "is_causal" in model.profiles["default"].adapter_options
    }
    assert says == {
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "Alibaba-NLP/gte-Qwen2-7B-instruct",
        "NovaSearch/stella_en_1.5B_v5",
    }
    for name in says:
        model = catalog.find(name)
        assert model is not None
        assert model.profiles["default"].adapter_options["is_causal"] is False


def test_the_task_of_embeddinggemma_is_an_instruction() -> None:
    model = published("google/embeddinggemma-300m")
    asked = EncodeParams(instruction="fact checking", options={"is_query": True})
    assert resolve_encode(model, asked).prompt.apply("T") == "task: fact checking | query: T"


OPENSEARCH = "opensearch-project/opensearch-neural-sparse-encoding"
# id: longest input, how often the logarithm is taken, special words left out, where queries get their weights
SPARSE: dict[str, tuple[int, int, bool, str | None]] = {
    "naver/splade-v3-distilbert": (512, 1, False, None),
    "prithivida/Splade_PP_en_v1": (128, 1, False, None),
    "ibm-granite/granite-embedding-30m-sparse": (512, 1, False, None),
    f"{OPENSEARCH}-doc-v1": (512, 1, True, "idf.json"),
    "naver/splade-v3": (512, 1, False, None),
    "naver/splade-cocondenser-selfdistil": (512, 1, False, None),
    "prithivida/Splade_PP_en_v2": (128, 1, False, None),
    "rasyosef/splade-mini": (512, 1, False, None),
    "rasyosef/splade-tiny": (512, 1, False, None),
    "Qdrant/splade-ecommerce-esci": (512, 1, False, None),
    f"{OPENSEARCH}-v1": (512, 1, True, None),
    f"{OPENSEARCH}-v2-distill": (512, 1, True, None),
    f"{OPENSEARCH}-doc-v2-distill": (512, 1, True, "idf.json"),
    f"{OPENSEARCH}-doc-v2-mini": (512, 1, True, "idf.json"),
    f"{OPENSEARCH}-doc-v3-distill": (512, 2, True, "idf.json"),
    f"{OPENSEARCH}-doc-v3-gte": (512, 2, True, "idf.json"),
}
WORD_PIECES, ROBERTA_WORDS = 30522, 50265
# id: longest pair
RERANKERS = {
    "cross-encoder/ms-marco-TinyBERT-L-2-v2": 512,
    "cross-encoder/ms-marco-MiniLM-L-2-v2": 512,
    "cross-encoder/ms-marco-MiniLM-L-4-v2": 512,
    "cross-encoder/ms-marco-MiniLM-L-6-v2": 512,
    "cross-encoder/ms-marco-MiniLM-L-12-v2": 512,
    "cross-encoder/stsb-roberta-base": 512,
    "BAAI/bge-reranker-base": 512,
    "BAAI/bge-reranker-large": 512,
    "BAAI/bge-reranker-v2-m3": 8192,
    "Alibaba-NLP/gte-reranker-modernbert-base": 8192,
    "Alibaba-NLP/gte-multilingual-reranker-base": 8192,
    "jinaai/jina-reranker-v2-base-multilingual": 1024,
}
APART = ("mixedbread-ai/mxbai-rerank-base-v2", "mixedbread-ai/mxbai-rerank-large-v2")
JUDGES = ("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B")
BERT_MARKERS, PYLATE_MARKERS = ("[unused0]", "[unused1]"), ("[Q] ", "[D] ")
JINA_MARKERS = ("[QueryMarker]", "[DocumentMarker]")
# id: components of a token, longest document, longest query, whether queries are expanded
COLBERT = {
    "lightonai/GTE-ModernColBERT-v1": (128, 8192, 48, True),
    "lightonai/Reason-ModernColBERT": (128, 8192, 128, True),
    "topk-io/Iso-ModernColBERT": (128, 8192, 32, True),
    "lightonai/mLateOn": (128, 8192, 8192, False),
    "mixedbread-ai/mxbai-edge-colbert-v0-32m": (64, 8192, 32, True),
    "jinaai/jina-colbert-v2": (128, 8192, 32, True),
    "colbert-ir/colbertv2.0": (128, 300, 32, True),
    "answerdotai/answerai-colbert-small-v1": (96, 300, 32, False),
    "mixedbread-ai/mxbai-colbert-large-v1": (128, 256, 128, False),
}


@pytest.mark.parametrize(("name", "facts"), SPARSE.items())
def test_published_sparse_models_keep_their_recipe(name: str, facts: tuple[int, int, bool, str | None]) -> None:
    model = published(name)
    options = model.profiles["default"].adapter_options
    found = options.get("log1p", 1), options.get("drop_special", False), options.get("query_weights")
    assert (model.max_sequence_length, *found) == facts
    assert model.dims == {"sparse": ROBERTA_WORDS if name.startswith("ibm-granite") else WORD_PIECES}


@pytest.mark.parametrize(("name", "facts"), COLBERT.items())
def test_published_late_interaction_models_keep_their_recipe(name: str, facts: tuple[int, int, int, bool]) -> None:
    model = published(name)
    dim, document_tokens, query_tokens, expansion = facts
    options = model.profiles["default"].adapter_options
    assert (model.dims, model.max_sequence_length) == ({"multivector": dim}, document_tokens)
    assert (options["query_length"], options["query_expansion"]) == (query_tokens, expansion)
    is_jina = name.startswith("jinaai/")
    markers = BERT_MARKERS if document_tokens < 512 else JINA_MARKERS if is_jina else PYLATE_MARKERS
    assert (options["query_marker"], options["doc_marker"]) == markers
    assert options.get("expansion_seen", False) == is_jina
    assert options.get("skip_punctuation", True) == (name != "lightonai/mLateOn")


# id: tokens of one batch, and the base on which the id itself is a LoRA
PAGES = {
    "vidore/colpali-v1.3-hf": (8192, None),
    "vidore/colqwen2-v1.0-hf": (4096, None),
    "vidore/colqwen2.5-v0.2": (4096, "vidore/colqwen2.5-base"),
    "vidore/colSmol-256M": (4096, "vidore/ColSmolVLM-Instruct-256M-base"),
    "vidore/colSmol-500M": (4096, "vidore/ColSmolVLM-Instruct-500M-base"),
}


@pytest.mark.parametrize(("name", "facts"), PAGES.items())
def test_published_models_of_page_images_keep_their_recipe(name: str, facts: tuple[int, str | None]) -> None:
    batch, base = facts
    model = published(name)
    profile = model.profiles["default"]
    assert (model.dims, model.max_sequence_length, model.inputs.image) == ({"multivector": 128}, 2048, True)
    assert (profile.adapter, profile.max_batch_tokens, profile.compute_precision) == ("colvision", batch, "bfloat16")
    assert model.hf_id == (base or name)
    loras = {each.lora.hf_id if each.lora else None for each in model.profiles.values()}
    assert loras == {name if base else None}


@pytest.mark.parametrize(("name", "length"), RERANKERS.items())
def test_published_rerankers_keep_their_length_and_have_no_other_task(name: str, length: int) -> None:
    model = published(name)
    assert (model.max_sequence_length, model.outputs) == (length, ("score",))
    assert model.adapters == {"cross_encoder"}


@pytest.mark.parametrize("name", JUDGES)
def test_published_judges_are_asked_in_their_own_words(name: str) -> None:
    model = published(name)
    options, wanted = model.profiles["default"].adapter_options, resolve_score(model, None, {})
    question = f"{wanted.query_prompt.apply('Q')}\n{wanted.document_prompt.apply('D')}"
    assert question == f"<Instruct>: {TASK}\n<Query>: Q\n<Document>: D"
    assert resolve_score(model, "Find it", {}).query_prompt.apply("Q") == "<Instruct>: Find it\n<Query>: Q"
    assert options["prefix"] == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    assert options["suffix"] == "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert (model.max_sequence_length, model.outputs) == (8192, ("score",))


@pytest.mark.parametrize("name", APART)
def test_published_judges_of_two_digits_are_asked_in_their_own_words(name: str) -> None:
    model = published(name)
    options, wanted = model.profiles["default"].adapter_options, resolve_score(model, None, {})
    assert (wanted.query_prompt.apply("Q"), wanted.document_prompt.apply("D")) == ("query: Q", "document: D")
    told = resolve_score(model, "Find it", {})
    assert told.query_prompt.apply("Q") == "instruction: Find it\nquery: Q"
    assert told.document_prompt.apply("D") == "document: D"
    assert [options[key] for key in ("separator", "yes", "no", "activation")] == ["\n", "1", "0", "identity"]
    assert options["prefix"] == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    assert options["suffix"].startswith("\nYou are a search relevance expert who evaluates how well documents match")
    assert options["suffix"].endswith("1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n")
    assert (model.max_sequence_length, model.outputs) == (8192, ("score",))


def test_bge_m3_has_three_outputs_and_a_profile_for_each() -> None:
    model = published("BAAI/bge-m3")
    assert model.dims == {"dense": 1024, "sparse": 250002, "multivector": 1024}
    assert (model.max_sequence_length, model.allow_pickle) == (8192, True)
    for profile, outputs in (("default", ("dense",)), *((kind, (kind,)) for kind in model.dims)):
        options = resolve_encode(model, EncodeParams(options={"profile": profile}))
        assert (options.output_types, options.prompt.apply("T")) == (outputs, "T")


def test_mgte_has_two_outputs_and_a_profile_for_each() -> None:
    model = published("Alibaba-NLP/gte-multilingual-base")
    assert (model.dims, model.max_sequence_length) == ({"dense": 768, "sparse": 250048}, 8192)
    assert model.tasks.encode is not None
    assert model.tasks.encode.dense == VectorTask(768, 128)
    assert not model.allow_pickle
    for profile, outputs in (("default", ("dense",)), *((kind, (kind,)) for kind in model.dims)):
        options = resolve_encode(model, EncodeParams(options={"profile": profile}))
        assert (options.output_types, options.prompt.apply("T")) == (outputs, "T")


def test_every_model_that_encodes_or_scores_text_has_its_recipe_here() -> None:
    families = {"dense", "sparse", "colbert", "colvision", "cross_encoder", "bge_m3"}
    catalog = own_catalog()
    assert {model.sie_id for model in catalog.models.values() if "judge" in model.adapters} == {*JUDGES, *APART}
    listed = {model.sie_id for model in catalog.models.values() if model.adapters & families}
    assert listed == {
        *RECIPES,
        *SPARSE,
        *COLBERT,
        *PAGES,
        *RERANKERS,
        "BAAI/bge-m3",
        "Alibaba-NLP/gte-multilingual-base",
    }


# id: whether neighbouring entities become one
GLINER = {
    "EmergentMethods/gliner_large_news-v2.1": False,
    "Ihor/gliner-biomed-large-v1.0": False,
    "NeuML/gliner-bert-tiny": True,
    "gliner-community/gliner_large-v2.5": False,
    "gliner-community/gliner_medium-v2.5": False,
    "gliner-community/gliner_small-v2.5": False,
    "knowledgator/gliner-bi-base-v2.0": False,
    "knowledgator/gliner-bi-edge-v2.0": False,
    "knowledgator/gliner-bi-large-v2.0": False,
    "knowledgator/gliner-bi-small-v2.0": False,
    "knowledgator/gliner-relex-large-v1.0": False,
    "knowledgator/modern-gliner-bi-base-v1.0": False,
    "numind/NuNER_Zero": True,
    "numind/NuNER_Zero-span": False,
    "urchade/gliner_large-v2.1": False,
    "urchade/gliner_medium-v2.1": False,
    "urchade/gliner_multi-v2.1": False,
    "urchade/gliner_multi_pii-v1": False,
    "urchade/gliner_small-v2.1": False,
}


@pytest.mark.parametrize(("name", "merges"), GLINER.items())
def test_published_gliner_models_keep_their_recipe(name: str, merges: bool) -> None:
    model = published(name)
    profile = model.profiles["default"]
    assert (model.hf_id, model.outputs, profile.adapter) == (name, ("json",), "gliner")
    choice = read_choice(profile.adapter_options)
    assert choice == Choice(threshold=0.5, flat_ner=True, multi_label=False, merge_adjacent_entities=merges)


@pytest.mark.parametrize("size", ["edge", "small", "base", "large"])
def test_the_gliner_models_of_personal_data_are_torch_files_and_have_a_lower_threshold(size: str) -> None:
    model = published(f"knowledgator/gliner-pii-{size}-v1.0")
    profile = model.profiles["default"]
    assert (model.outputs, profile.adapter, model.allow_pickle) == (("json",), "gliner", True)
    assert read_choice(profile.adapter_options) == Choice(threshold=0.3, relation_threshold=0.3)


def test_the_published_glirel_model_asks_for_entities_and_keeps_its_recipe() -> None:
    model = published("jackboyla/glirel-large-v0")
    assert model.tasks.extract == ExtractTask(labels="required", entities="required")
    profile = model.profiles["default"]
    assert (profile.adapter, profile.adapter_options) == ("glirel", {"threshold": 0.1, "top_k": 10})


def test_published_gliner2_models_find_entities_and_classes() -> None:
    catalog = own_catalog()
    models = [model for model in catalog.models.values() if "gliner2" in model.adapters]
    for_personal_data = "fastino/gliner2-privacy-filter-PII-multi"
    both = [model for model in models if model.sie_id != for_personal_data]
    assert len(both) == len(models) - 1
    assert {model.sie_id for model in both} == {"fastino/gliner2-base-v1", "fastino/gliner2-large-v1"}
    assert catalog.models[for_personal_data.lower()].profiles.keys() == {"default"}
    for model in both:
        for profile, findings in (("default", {}), ("classify", {"findings": "classifications"})):
            params = ExtractParams(labels=["a"], options={"profile": profile})
            assert resolve_extract(model, params).options == findings
        asked = resolve_extract(model, ExtractParams(output_schema={"properties": {"a": {"type": "string"}}}))
        assert asked.schema is not None


# id: longest text with its labels
GLICLASS = {
    "knowledgator/gliclass-small-v1.0": 512,
    "knowledgator/gliclass-base-v1.0": 512,
    "knowledgator/gliclass-large-v1.0": 512,
    "knowledgator/gliclass-base-v3.0": 512,
    "knowledgator/gliclass-large-v3.0": 512,
    "knowledgator/gliclass-edge-v3.0": 1024,
    "knowledgator/gliclass-modern-base-v3.0": 1024,
    "knowledgator/gliclass-modern-large-v3.0": 1024,
}


def test_published_gliclass_models_need_labels_and_give_every_one_a_score() -> None:
    catalog = own_catalog()
    models = [model for model in catalog.models.values() if "gliclass" in model.adapters]
    assert {model.sie_id: model.max_sequence_length for model in models} == GLICLASS
    for model in models:
        assert model.tasks.extract is not None
        assert (model.tasks.extract.labels, model.profiles["default"].adapter_options) == ("required", {})


def test_published_owlv2_models_read_images_and_labels() -> None:
    catalog = own_catalog()
    models = [model for model in catalog.models.values() if "owlv2" in model.adapters]
    assert {model.sie_id for model in models} == {
        "google/owlv2-base-patch16-ensemble",
        "google/owlv2-large-patch14-ensemble",
    }
    for model in models:
        assert model.inputs == Inputs(text=False, image=True)
        resolved = resolve_extract(model, ExtractParams(labels=["a cat"]))
        assert (resolved.labels, resolved.options) == (("a cat",), {"score_threshold": 0.1})


def test_published_grounding_dino_models_read_images_and_labels() -> None:
    catalog = own_catalog()
    models = {model.sie_id: model for model in catalog.models.values() if "grounding_dino" in model.adapters}
    assert set(models) == {"IDEA-Research/grounding-dino-tiny", "IDEA-Research/grounding-dino-base"}
    for model in models.values():
        assert model.inputs == Inputs(text=False, image=True)
        resolved = resolve_extract(model, ExtractParams(labels=["a cat"]))
        assert resolved.options == {"box_threshold": 0.25, "text_threshold": 0.25}


# id: task, most tokens, whether a question is read, tasks of its own
WRITERS: dict[str, tuple[str, int, str, list[str]]] = {
    "microsoft/Florence-2-base": ("<OCR_WITH_REGION>", 1024, "optional", []),
    "microsoft/Florence-2-base-ft": ("<OCR_WITH_REGION>", 1024, "optional", []),
    "microsoft/Florence-2-large": ("<OCR_WITH_REGION>", 1024, "optional", []),
    "mynkchaudhry/Florence-2-FT-DocVQA": ("<DocVQA>", 512, "optional", ["<DocVQA>"]),
    "naver-clova-ix/donut-base-finetuned-cord-v2": ("<s_cord-v2>", 512, "none", []),
    "naver-clova-ix/donut-base-finetuned-docvqa": ("<s_docvqa>", 512, "required", []),
    "naver-clova-ix/donut-base-finetuned-rvlcdip": ("<s_rvlcdip>", 512, "none", []),
}


def test_published_models_that_write_keep_their_recipe() -> None:
    own = Settings()
    catalog = read_catalog(own.models_dir, own.bundles_dir)
    models = {model.sie_id: model for model in catalog.models.values() if model.adapters & {"florence2", "donut"}}
    assert set(models) == set(WRITERS)
    for name, (task, tokens, instruction, tasks) in WRITERS.items():
        model = models[name]
        profile = model.profiles["default"]
        assert (profile.compute_precision, profile.adapter_options.get("tasks", [])) == ("float16", tasks)
        assert model.inputs == Inputs(text="docvqa" in name.lower(), image=True)
        assert model.tasks.extract is not None
        assert (model.tasks.extract.labels, model.tasks.extract.instruction) == ("none", instruction)
        resolved = resolve_extract(model, ExtractParams())
        assert resolved.options == {"task": task, "max_new_tokens": tokens, "num_beams": 1}


def test_our_own_catalogue_is_served_by_its_default_bundle() -> None:
    catalog = own_catalog()
    assert len(select(catalog, "default", ())) == len(list(Settings().models_dir.glob("*.yaml")))
    assert list(select(catalog, "default", ("SIE/hash-64",))) == ["sie/hash-64"]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("sie_id: x\nsurprise: 1\n")
    with pytest.raises(ValueError, match=r"bad\.yaml: .*surprise"):
        read_catalog(tmp_path, Settings().bundles_dir)


def test_a_model_whose_adapter_nobody_has_is_named_with_the_one_that_was_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = "tasks: {encode: {dense: {dim: 4}}}\nprofiles: {default: {adapter: "
    (tmp_path / "m.yaml").write_text(f"sie_id: org/m\n{task}dens}}}}\n")
    (tmp_path / "n.yaml").write_text(f"sie_id: org/n\n{task}elsewhere}}}}\n")
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    (bundles / "b.yaml").write_text("name: b\nadapters: [elsewhere]\n")
    read_catalog(tmp_path, bundles)
    [said] = caplog.messages
    assert said == "model 'org/m' is served by nobody: there is no adapter 'dens'; did you mean dense?"


def test_a_misspelt_option_is_refused_when_the_catalogue_is_read(tmp_path: Path) -> None:
    profile = "{adapter: dense, adapter_options: {poolin: cls}}"
    (tmp_path / "m.yaml").write_text(
        f"sie_id: org/m\ntasks: {{encode: {{dense: {{dim: 4}}}}}}\nprofiles: {{default: {profile}}}\n"
    )
    catalog = read_catalog(tmp_path, Settings().bundles_dir)
    with pytest.raises(ValueError, match="has no option 'poolin'; did you mean pooling"):
        select(catalog, "default", ())
