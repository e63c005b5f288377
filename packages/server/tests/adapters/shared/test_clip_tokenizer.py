"""The tokenizer of CLIP from its two older files gives what that of transformers gives."""

import json
import warnings
from pathlib import Path

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.clip_tokenizer import END, START, open_clip_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the oracle's own
    from transformers import CLIPTokenizer

MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "t h", "th e</w>", "' s</w>"]
TEXTS = ["a cat", "The  DOG's\tcat!", "", "40 cats, café 😀", "dog<|endoftext|>", "e\u0301 \xa0 x"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{each}</w>" for each in letters), *(merge.replace(" ", "") for merge in MERGES), START, END]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: at for at, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    return tmp_path


def test_texts_have_the_tokens_of_transformers(folder: Path) -> None:
    merges = [tuple(each.split()) for each in MERGES]
    oracle = CLIPTokenizer(vocab=json.loads((folder / "vocab.json").read_text()), merges=merges)
    own = open_clip_tokenizer(folder)
    for text in TEXTS:
        assert own.encode(text).ids == oracle(text)["input_ids"], text


def test_a_tokenizer_file_goes_first(folder: Path) -> None:
    other: Tokenizer = open_clip_tokenizer(folder)
    other.add_tokens(["zebra"])
    other.save(str(folder / "tokenizer.json"))
    assert open_clip_tokenizer(folder).token_to_id("zebra") is not None


def test_files_that_are_missing_or_broken_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no tokenizer\.json"):
        open_clip_tokenizer(tmp_path / "nothing")
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "a</w>": 1}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(LoadError, match=r"<\|startoftext\|>"):
        open_clip_tokenizer(folder)
    (folder / "vocab.json").write_text("no")
    with pytest.raises(LoadError, match="cannot be read"):
        open_clip_tokenizer(folder)
