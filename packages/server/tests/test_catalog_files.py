from pathlib import Path

import pytest

from sie_protocol.items import EncodeParams
from sie_server.adapters.gliner import Choice, read_choice
from sie_server.catalog_files import read_catalog, select
from sie_server.core.options import resolve_encode
from sie_server.settings import Settings

FOR_QUERIES = "Represent this sentence for searching relevant passages: T"
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
    "Qwen/Qwen3-Embedding-0.6B": (32768, 1024, "last", f"Instruct: {TASK}\nQuery:T", "T"),
    "Qwen/Qwen3-Embedding-4B": (32768, 2560, "last", f"Instruct: {TASK}\nQuery:T", "T"),
    "Qwen/Qwen3-Embedding-8B": (32768, 4096, "last", f"Instruct: {TASK}\nQuery:T", "T"),
    "intfloat/e5-mistral-7b-instruct": (4096, 4096, "last", f"Instruct: {TASK}\nQuery: T", "T"),
}
RECIPES = {name: (512, *facts) for name, facts in FAMILY.items()} | BEYOND


@pytest.mark.parametrize(("name", "facts"), RECIPES.items())
def test_published_models_keep_their_published_recipe(name: str, facts: tuple[int, int, str, str, str]) -> None:
    own = Settings()
    model = read_catalog(own.models_dir, own.bundles_dir).find(name)
    assert model is not None
    length, dim, pooling, query, document = facts
    options = model.profiles["default"].adapter_options
    assert (model.dims, options["pooling"], options["normalize"]) == ({"dense": dim}, pooling, True)
    assert model.max_sequence_length == length
    as_query = EncodeParams(options={"is_query": True})
    assert resolve_encode(model, as_query).prompt.apply("T") == query
    assert resolve_encode(model, EncodeParams()).prompt.apply("T") == document


def test_an_instruction_of_the_caller_takes_the_place_of_the_default_one() -> None:
    own = Settings()
    model = read_catalog(own.models_dir, own.bundles_dir).find("intfloat/multilingual-e5-large-instruct")
    assert model is not None
    asked = EncodeParams(instruction="Find duplicates", options={"is_query": True})
    assert resolve_encode(model, asked).prompt.apply("T") == "Instruct: Find duplicates\nQuery: T"


OPENSEARCH = "opensearch-project/opensearch-neural-sparse-encoding"
# id: longest input, how often the logarithm is taken, special words left out, where queries get their weights
SPARSE = {
    "naver/splade-v3": (512, 1, False, None),
    "naver/splade-cocondenser-selfdistil": (512, 1, False, None),
    "prithivida/Splade_PP_en_v2": (128, 1, False, None),
    "rasyosef/splade-mini": (512, 1, False, None),
    "rasyosef/splade-tiny": (512, 1, False, None),
    f"{OPENSEARCH}-v1": (512, 1, True, None),
    f"{OPENSEARCH}-v2-distill": (512, 1, True, None),
    f"{OPENSEARCH}-doc-v2-distill": (512, 1, True, "idf.json"),
    f"{OPENSEARCH}-doc-v2-mini": (512, 1, True, "idf.json"),
    f"{OPENSEARCH}-doc-v3-distill": (512, 2, True, "idf.json"),
}
# id: components of a token, longest document, longest query, whether queries are expanded
COLBERT = {
    "colbert-ir/colbertv2.0": (128, 300, 32, True),
    "answerdotai/answerai-colbert-small-v1": (96, 300, 32, False),
    "mixedbread-ai/mxbai-colbert-large-v1": (128, 256, 128, False),
}


@pytest.mark.parametrize(("name", "facts"), SPARSE.items())
def test_published_sparse_models_keep_their_recipe(name: str, facts: tuple[int, int, bool, str | None]) -> None:
    own = Settings()
    model = read_catalog(own.models_dir, own.bundles_dir).find(name)
    assert model is not None
    options = model.profiles["default"].adapter_options
    found = options.get("log1p", 1), options.get("drop_special", False), options.get("query_weights")
    assert (model.max_sequence_length, *found) == facts
    assert model.dims == {"sparse": 30522}


@pytest.mark.parametrize(("name", "facts"), COLBERT.items())
def test_published_late_interaction_models_keep_their_recipe(name: str, facts: tuple[int, int, int, bool]) -> None:
    own = Settings()
    model = read_catalog(own.models_dir, own.bundles_dir).find(name)
    assert model is not None
    dim, document_tokens, query_tokens, expansion = facts
    options = model.profiles["default"].adapter_options
    assert (model.dims, model.max_sequence_length) == ({"multivector": dim}, document_tokens)
    assert (options["query_length"], options["query_expansion"]) == (query_tokens, expansion)
    assert (options["query_marker"], options["doc_marker"]) == ("[unused0]", "[unused1]")


# id: whether neighbouring entities become one
GLINER = {
    "EmergentMethods/gliner_large_news-v2.1": False,
    "Ihor/gliner-biomed-large-v1.0": False,
    "NeuML/gliner-bert-tiny": True,
    "gliner-community/gliner_large-v2.5": False,
    "gliner-community/gliner_medium-v2.5": False,
    "gliner-community/gliner_small-v2.5": False,
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
    own = Settings()
    model = read_catalog(own.models_dir, own.bundles_dir).find(name)
    assert model is not None
    profile = model.profiles["default"]
    assert (model.hf_id, model.outputs, profile.adapter) == (name, ("json",), "gliner")
    choice = read_choice(profile.adapter_options)
    assert choice == Choice(threshold=0.5, flat_ner=True, multi_label=False, merge_adjacent_entities=merges)


def test_our_own_catalogue_is_served_by_its_default_bundle() -> None:
    own = Settings()
    catalog = read_catalog(own.models_dir, own.bundles_dir)
    assert len(select(catalog, "default", ())) == len(list(own.models_dir.glob("*.yaml")))
    assert list(select(catalog, "default", ("SIE/hash-64",))) == ["sie/hash-64"]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("sie_id: x\nsurprise: 1\n")
    with pytest.raises(ValueError, match=r"bad\.yaml: .*surprise"):
        read_catalog(tmp_path, Settings().bundles_dir)
