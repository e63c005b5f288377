import fcntl
import random
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_cli.batch.job import BatchError, Job, Record, Row
from sie_cli.batch.journal import Chain, Journal

JOB = Job("encode", "sie/hash-64", dtype="float16")


def chunks(count: int, size: int) -> list[list[Row]]:
    vectors = np.random.default_rng(0)
    rows: list[Row] = [{"id": str(n), "dense": vectors.random(4, np.float32)} for n in range(count)]
    return [rows[at : at + size] for at in range(0, count, size)]


def filled(path: Path, parts: list[list[Row]]) -> list[int]:
    """Write a journal; the size of the file after each chunk."""
    sizes, chain = [], Chain()
    with Journal(path, JOB) as journal:
        for part in parts:
            journal.append(part, chain.add([Record(row["id"], "x") for row in part]))
            sizes.append(path.stat().st_size)
    return sizes


def ids(journal: Journal) -> list[str]:
    return [row["id"] for row in journal.rows()]


def test_rows_come_back_as_they_were_with_their_arrays(tmp_path: Path) -> None:
    parts = chunks(10, 3)
    filled(tmp_path / "j", parts)
    with Journal(tmp_path / "j", JOB) as journal:
        assert journal.count == 10
        found = list(journal.rows())
    wanted = [row for part in parts for row in part]
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    assert all((a["dense"] == b["dense"]).all() for a, b in zip(found, wanted, strict=True))


def test_a_journal_cut_or_spoilt_anywhere_holds_exactly_the_chunks_before_that_place(tmp_path: Path) -> None:
    parts = chunks(9, 2)
    path = tmp_path / "j"
    sizes = filled(path, parts)
    whole = path.read_bytes()
    first_end = sizes[0] - (sizes[1] - sizes[0])  # the header ends where the first chunk begins
    for place in sorted(random.Random(1).sample(range(first_end + 1, len(whole)), 60)):
        intact = sum(size <= place for size in sizes)
        for spoilt in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            path.write_bytes(spoilt)
            with Journal(path, JOB) as journal:
                assert ids(journal) == [row["id"] for part in parts[:intact] for row in part]
                assert journal.count == sum(len(part) for part in parts[:intact])
            assert path.stat().st_size == (sizes[intact - 1] if intact else first_end)


def test_a_continued_journal_is_the_same_as_one_written_at_once(tmp_path: Path) -> None:
    parts = chunks(9, 2)
    filled(tmp_path / "once", parts)
    chain = Chain()
    for part in parts:
        with Journal(tmp_path / "twice", JOB) as journal:
            journal.append(part, chain.add([Record(row["id"], "x") for row in part]))
    assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes()


@pytest.mark.parametrize(
    "other",
    [Job("encode", "sie/hash-64"), Job("encode", "other", dtype="float16"), Job("score", "sie/hash-64", query="q")],
)
def test_the_journal_of_another_job_is_refused_with_the_difference_unless_begun_anew(
    tmp_path: Path, other: Job
) -> None:
    path = tmp_path / "j"
    filled(path, chunks(2, 2))
    with pytest.raises(BatchError, match=r"a run with .+, not .+--overwrite"):
        Journal(path, other)
    with Journal(path, other, anew=True) as journal:
        assert journal.count == 0


def test_where_it_runs_is_no_part_of_the_job(tmp_path: Path) -> None:
    filled(tmp_path / "j", chunks(2, 2))
    with Journal(tmp_path / "j", Job("encode", "sie/hash-64", gpu="l4", dtype="float16")) as journal:
        assert journal.count == 2


def test_a_second_run_with_the_same_output_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path, [])
    with Journal(path, JOB), pytest.raises(BatchError, match="another run writes"):
        Journal(path, JOB)


def test_a_run_that_opens_the_journal_as_the_one_before_it_deletes_it_holds_no_lock_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / "j", fcntl.flock

    def flock(file: IO[bytes], how: int) -> None:
        path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BatchError, match="another run just ended"):
        Journal(path, JOB)


texts = st.lists(st.builds(Record, st.text(max_size=3), st.text(max_size=3)), max_size=6)


@given(texts, texts)
def test_two_inputs_have_the_same_digest_only_if_they_are_the_same(one: list[Record], other: list[Record]) -> None:
    assert (Chain().add(one) == Chain().add(other)) == (one == other)


@given(texts, st.integers(0, 6))
def test_the_digest_does_not_depend_on_how_the_input_is_cut(records: list[Record], at: int) -> None:
    chain = Chain()
    chain.add(records[:at])
    assert chain.add(records[at:]) == Chain().add(records)
