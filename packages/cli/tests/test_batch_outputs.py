import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_cli.batch.job import BatchError, Job, Row
from sie_cli.batch.npz import write_npz
from sie_cli.batch.outputs import best, write_json_lines, writer
from sie_cli.failing import UseError

COUNT = 2500  # more than two row groups
RNG = np.random.default_rng(5)


def row(n: int) -> Row:
    """All outputs at once, ragged where they may be."""
    tokens, words = 1 + n % 3, n % 4
    return {
        "id": f"row-{n}",
        "dense": RNG.integers(-127, 127, 8, np.int8),
        "sparse": {"indices": np.arange(words, dtype=np.int32), "values": RNG.random(words, np.float32)},
        "multivector": RNG.random((tokens, 4), np.float32).astype(np.float16),
        "quantization": {"dense": {"scale": 0.5 + n}},
    }


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row(n) for n in range(COUNT)]


def test_an_npz_opens_in_numpy_and_has_every_row(rows: list[Row], tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", iter(rows))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["ids"].tolist() == [each["id"] for each in rows]
        assert found["dense"].dtype == np.int8
        assert (found["dense"] == np.stack([each["dense"] for each in rows])).all()
        assert (found["dense_scale"] == np.arange(COUNT) + 0.5).all()
        for kind, parts in (("sparse", ("sparse_indices", "sparse_values")), ("multivector", ("multivector",))):
            starts = found[f"{kind}_indptr"]
            assert len(starts) == COUNT + 1
            for n in (0, 1, 777, COUNT - 1):
                wanted = [rows[n]["multivector"]] if kind == "multivector" else list(rows[n]["sparse"].values())
                for name, values in zip(parts, wanted, strict=True):
                    assert (found[name][starts[n] : starts[n + 1]] == values).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_parquet_file_has_every_row_typed_in_several_row_groups(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    writer(Job("encode", "m"), path)(path, iter(rows))
    assert pq.ParquetFile(path).num_row_groups == 3
    table = pq.read_table(path)
    assert str(table.schema.field("dense").type) == "fixed_size_list<element: int8>[8]"
    for n in (0, 1, 1500, COUNT - 1):
        found = table.slice(n, 1).to_pylist()[0]
        assert found["id"] == rows[n]["id"]
        assert found["dense"] == rows[n]["dense"].tolist()
        assert found["sparse"] == {name: values.tolist() for name, values in rows[n]["sparse"].items()}
        assert found["multivector"] == rows[n]["multivector"].tolist()
        assert found["dense_scale"] == n + 0.5


def test_findings_in_parquet_are_lists_of_structs(tmp_path: Path) -> None:
    entity = {"text": "Ada", "label": "person", "score": 0.5, "start": 0, "end": 3, "bbox": None}
    found: Row = {
        "id": "1",
        "entities": [entity],
        "classifications": [],
        "relations": [],
        "objects": [],
        "data": {"a": 1},
    }
    path = tmp_path / "a.parquet"
    writer(Job("extract", "m"), path)(path, iter([found, {**found, "id": "2", "entities": []}]))
    one, two = pq.read_table(path).to_pylist()
    assert one == {**found, "data": '{"a":1}'}
    assert two["entities"] == []


def test_json_lines_hold_arrays_as_lists(rows: list[Row], tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl", rows[:3])
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["dense"] for line in lines] == [each["dense"].tolist() for each in rows[:3]]


@pytest.mark.parametrize("suffix", [".jsonl", ".npz", ".parquet"])
def test_an_empty_input_gives_an_empty_output(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    writer(Job("encode", "m"), path)(path, iter([]))
    assert path.exists()


@pytest.mark.parametrize(
    ("job", "name", "says"),
    [(Job("encode", "m"), "a.csv", "suffix chooses the format"), (Job("extract", "m"), "a.npz", "holds arrays")],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_sent(job: Job, name: str, says: str) -> None:
    with pytest.raises(UseError, match=says):
        writer(job, Path(name))


def test_vectors_of_two_sizes_are_refused_in_an_npz(tmp_path: Path) -> None:
    two: list[Row] = [{"id": str(n), "dense": np.zeros(n, np.float32)} for n in (2, 3)]
    with pytest.raises(BatchError, match=r"'dense' changes from float32\[2\] to float32\[3\]"):
        write_npz(tmp_path / "a.npz", two)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(-1, 1)), st.integers(1, 5))
def test_the_best_are_the_head_of_a_stable_sort(scores: list[float], count: int) -> None:
    rows: list[Row] = [{"id": str(n), "score": score} for n, score in enumerate(scores)]
    wanted = sorted(rows, key=lambda each: -each["score"])[:count]
    assert [each["id"] for each in best(rows, count)] == [each["id"] for each in wanted]
