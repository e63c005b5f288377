"""Real weights behind the real command."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from served_worker import process
from sie_protocol.arrays import Array

MODEL = "rasyosef/splade-tiny"
BERLIN = "Berlin is the capital of Germany"


def words() -> list[str]:
    spec = find_spec("cognition")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    tokenizer = json.loads(Path(spec.submodule_search_locations[0], "model", "tokenizer.json").read_bytes())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)


def dot(left: dict[str, Array], right: dict[str, Array]) -> float:
    _, at, to = np.intersect1d(left["indices"], right["indices"], return_indices=True)
    return float(left["values"][at] @ right["values"][to])


def test_a_real_splade_suggests_the_words_that_belong_to_a_text() -> None:
    vocabulary = words()
    with process("--models", MODEL) as worker, worker.client() as http:
        texts = (BERLIN, "what is the capital of germany", "how do cats land on their feet")
        answer = worker.encode(http, MODEL, *texts)
        alone = worker.encode(http, MODEL, BERLIN)["items"][0]["sparse"]
        assert worker.stop() == 0
    document, relevant, irrelevant = (item["sparse"] for item in answer["items"])
    assert (document["dims"], document["dtype"], document["indices"].dtype) == (30522, "float32", np.int32)
    named = {
        vocabulary[at]: round(float(weight), 2) for at, weight in zip(alone["indices"], alone["values"], strict=True)
    }
    assert len(named) == 9
    expected = {"capital": 2.49, "berlin": 2.30, "germany": 1.65, "german": 1.56, "paris": 1.51}
    assert {word: named[word] for word in expected} == expected
    np.testing.assert_array_equal(alone["indices"], document["indices"])
    np.testing.assert_allclose(alone["values"], document["values"], rtol=1e-5, atol=1e-5)
    assert dot(document, relevant) > 10
    assert dot(document, irrelevant) == 0
