"""Vectors of labels are computed once, whoever asks for them, and no more of them are kept than a bound."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_protocol.arrays import Array
from sie_server.adapters.base import LoadError, UnsupportedInputError
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.gliner_config import read_gliner_config
from sie_server.adapters.shared.gliner_labels import TOKENIZER, LabelVectors, read_label_vectors
from sie_server.adapters.shared.weights import read_json, read_tensors
from tiny_gliner import LABEL_BERT, LABEL_POSITIONS, MODERNBERT, WIDTH, Variety, write_gliner

KEPT = 5
LIMIT = 24  # tokens computed at once: two or three labels
LABELS = tuple(f"{a} {b}" for a in ("person", "place", "thing") for b in ("x", "yy", "zzz"))


class CountingEncoder:
    """Passes sequences on and counts them."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.read = 0

    @property
    def targets(self) -> None:
        return None

    def encode(self, sequences: Sequence[Array], **options: Any) -> tuple[torch.Tensor, list[int]]:
        self.read += len(sequences)
        return self._encoder.encode(sequences, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variety = Variety(encoder=MODERNBERT, labels=LABEL_BERT, seed=3)
    return write_gliner(tmp_path_factory.mktemp("tiny") / "model", variety)


def counted(folder: Path) -> tuple[LabelVectors, CountingEncoder]:
    config = read_gliner_config(read_json(folder / "gliner_config.json"))
    whole = read_label_vectors(folder, read_tensors(folder), config, "cpu", torch.float32)
    assert whole is not None
    assert config.labels_encoder is not None
    assert read_architecture(config.labels_encoder).positions == LABEL_POSITIONS
    encoder = CountingEncoder(whole._encoder)
    return LabelVectors(folder / TOKENIZER, encoder, LABEL_POSITIONS, whole._projection, LIMIT, KEPT), encoder


@given(st.lists(st.lists(st.sampled_from(LABELS), min_size=1, max_size=9, unique=True), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vector_is_the_same_whether_it_was_kept_or_not(folder: Path, requests: list[list[str]]) -> None:
    labels, encoder = counted(folder)
    recent: list[str] = []  # the last is the latest asked for
    for asked in requests:
        before, texts = encoder.read, labels.read(asked)
        unknown = [each for label, each in zip(asked, texts, strict=True) if label not in recent]
        assert labels.unknown_tokens(texts) == sum(map(len, unknown))
        found = labels.of(texts)
        assert found.shape == (len(asked), WIDTH)
        assert encoder.read - before == len(unknown)
        torch.testing.assert_close(found, counted(folder)[0].of(texts), rtol=1e-5, atol=1e-5)
        recent = [*(each for each in recent if each not in asked), *asked][-KEPT:]


def test_a_label_that_is_asked_for_twice_at_once_is_read_once(folder: Path) -> None:
    labels, encoder = counted(folder)
    one = labels.read(LABELS[:1])
    found = labels.of(one + one)
    assert encoder.read == 1
    assert torch.equal(found[0], found[1])


def test_a_label_that_its_encoder_cannot_read_whole_is_refused(folder: Path) -> None:
    labels, _ = counted(folder)
    assert len(labels.read(["a" * (LABEL_POSITIONS - 2)])[0]) == LABEL_POSITIONS
    with pytest.raises(UnsupportedInputError, match=rf"the label 'a+' has {LABEL_POSITIONS + 1} tokens"):
        labels.read(["x", "a" * (LABEL_POSITIONS - 1)])


def test_a_folder_without_the_tokenizer_of_labels_is_refused(tmp_path: Path) -> None:
    other = write_gliner(tmp_path / "model", Variety(encoder=MODERNBERT, labels=LABEL_BERT))
    (other / TOKENIZER / "tokenizer.json").unlink()
    config = read_gliner_config(read_json(other / "gliner_config.json"))
    with pytest.raises(LoadError, match=r"no labels_tokenizer/tokenizer\.json, as files of old versions"):
        read_label_vectors(other, read_tensors(other), config, "cpu", torch.float32)
