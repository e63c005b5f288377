import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, ModelSpec, Pair, UnsupportedInputError, WeightsSource
from sie_server.adapters.judge import JudgeAdapter
from tiny_judge import write_judge

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import AutoModelForCausalLM

PAIRS = [Pair("the cat", "sat on a mat"), Pair("", ""), Pair("dogs", "far away, " * 30), Pair("q", "the other one.")]
SEPARATOR = "\n"
FRAME = {"prefix": "Is it so? ", "suffix": " Say: ", "yes": "y", "no": "n"}


def adapter(folder: Path, max_length: int | None = None, **options: Any) -> JudgeAdapter:
    built = JudgeAdapter(ModelSpec("org/tiny", WeightsSource(path=str(folder)), {}, FRAME | options, max_length))
    built.load("cpu")
    return built


def recipe(folder: Path, max_length: int) -> Array:
    """The published way, pair by pair: cut the question, put it between prefix and suffix, compare two logits."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prefix, suffix = (tokenizer.encode(FRAME[part], add_special_tokens=False).ids for part in ("prefix", "suffix"))
    tokenizer.enable_truncation(max_length - len(prefix) - len(suffix))
    scores = []
    for pair in PAIRS:
        ids = prefix + tokenizer.encode("\n".join(pair)).ids + suffix
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        both = torch.stack(
            [logits[tokenizer.encode(FRAME[word], add_special_tokens=False).ids[0]] for word in ("no", "yes")]
        )
        scores.append(torch.softmax(both, 0)[1].item())
    return np.array(scores, np.float32)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_length", [512, 60])
def test_scores_of_a_mixed_batch_equal_the_published_recipe(tmp_path: Path, tied: bool, max_length: int) -> None:
    folder = write_judge(tmp_path / "model", tied=tied)
    loaded, expected = adapter(folder, max_length), recipe(folder, max_length)
    prepared = loaded.prepare(PAIRS)
    assert np.ptp(expected) > 0.01  # or equality would say little
    np.testing.assert_allclose(loaded.run(prepared, threads=1)["score"], expected, rtol=1e-5, atol=1e-5)
    assert [each.truncated for each in prepared] == [False, False, max_length == 60, False]
    assert loaded.tokens_of(PAIRS[2]) == adapter(folder).prepare(PAIRS)[2].tokens


def recipe_in_parts(folder: Path, max_length: int) -> Array:
    """As mxbai-rerank-v2: query and document tokenised apart, only the document cut, the difference of two logits."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    prefix, suffix = ids(FRAME["prefix"]), ids(FRAME["suffix"])
    scores = []
    for query, document in PAIRS:
        question = [*ids(query), *ids(SEPARATOR)]
        room = max_length - len(prefix) - len(suffix) - len(question)
        whole = [*prefix, *question, *ids(document)[:room], *suffix]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([whole])).logits[0, -1]
        scores.append((logits[ids("y")[0]] - logits[ids("n")[0]]).item())
    return np.array(scores, np.float32)


@pytest.mark.parametrize("max_length", [512, 60])
def test_parts_that_are_tokenised_apart_give_the_difference_of_their_logits(tmp_path: Path, max_length: int) -> None:
    folder = write_judge(tmp_path / "model", tied=True, model_type="qwen2")
    loaded = adapter(folder, max_length, separator=SEPARATOR, activation="identity")
    prepared, expected = loaded.prepare(PAIRS), recipe_in_parts(folder, max_length)
    assert np.ptp(expected) > 0.01  # or equality would say little
    np.testing.assert_allclose(loaded.run(prepared, threads=1)["score"], expected, rtol=1e-5, atol=1e-5)
    assert [each.truncated for each in prepared] == [False, False, max_length == 60, False]
    whole = adapter(folder, separator=SEPARATOR).prepare(PAIRS)
    assert [loaded.tokens_of(pair) for pair in PAIRS] == [each.tokens for each in whole]


@pytest.mark.parametrize(
    ("options", "length", "named"),
    [
        ({"yes": "maybe"}, None, "'maybe', which is not one token"),
        ({}, 16, "no room"),
        ({"activation": "swish"}, None, "activation 'swish'"),
    ],
)
def test_options_that_do_not_fit_are_found_at_load(
    tmp_path: Path, options: dict[str, str], length: int | None, named: str
) -> None:
    with pytest.raises(LoadError, match=named):
        adapter(write_judge(tmp_path / "model", tied=True), length, **options)


def test_a_single_text_is_refused(tmp_path: Path) -> None:
    loaded = adapter(write_judge(tmp_path / "model", tied=True))
    for read in (lambda: loaded.prepare(["cat"]), lambda: loaded.tokens_of("cat")):
        with pytest.raises(UnsupportedInputError, match="pairs"):
            read()
