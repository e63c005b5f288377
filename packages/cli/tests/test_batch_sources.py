import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sie_cli.batch.job import BatchError, Record
from sie_cli.batch.sources import Columns, count, is_file, misspelt, records
from sie_cli.failing import UseError

TEXT = Columns()


def read(path: Path, columns: Columns = TEXT) -> list[Record]:
    return list(records([str(path)], columns, texts=False))


def test_a_text_file_gives_a_record_a_line_named_by_its_number_and_skips_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\n\ntwo  \nlast ü".encode())
    assert read(path) == [Record("1", "one"), Record("3", "two  "), Record("4", "last ü")]
    assert count([str(path)], texts=False) == 3


def test_a_text_file_in_another_encoding_is_refused_with_the_line_and_not_embedded_as_something_else(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\nzwölf\n".encode("latin1"))
    with pytest.raises(BatchError, match=r"line 2: no UTF-8 \(byte 2\); convert it first"):
        read(path)


@pytest.mark.parametrize(("name", "line"), [("a.txt", "one"), ("a.jsonl", '{"text": "one"}')])
def test_a_mark_in_front_of_the_first_line_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    path = tmp_path / name
    path.write_text(line, encoding="utf-8-sig")
    assert read(path) == [Record("1", "one")]
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(path.read_bytes())))
    assert list(records([], TEXT, texts=False)) == [Record("1", "one")]


def test_json_lines_take_text_and_id_from_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x", "key": 7}\n\n{"body": "y", "key": "b"}\n')
    assert read(path, Columns("body", "key")) == [Record("7", "x"), Record("b", "y")]
    assert read(path, Columns("body")) == [Record("1", "x"), Record("3", "y")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: no JSON"),
        ("[1]", "expected an object"),
        ('{"a": "b"}', "no text in 'text'; it has a"),
        ('{"text": 3}', "it is int"),
        ('{"text": "x"}', "no id in 'key'"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(BatchError, match=says) as raised:
        read(path, Columns("text", "key"))
    assert "--keep-going" in str(raised.value)
    [record] = read(path, Columns("text", "key", keep_going=True))
    assert (record.id, record.text) == ("1", "")
    assert str(raised.value).startswith(record.fault)


def test_a_line_in_another_encoding_can_be_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\nzwölf\ntwo".encode("latin1"))
    first, second, third = read(path, Columns(keep_going=True))
    assert (first, third) == (Record("1", "one"), Record("3", "two"))
    assert "line 2: no UTF-8" in second.fault


def test_parquet_is_read_by_column_and_tells_its_columns_when_one_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"t": [f"text {n}" for n in range(3000)], "k": list(range(3000)), "other": [0.0] * 3000})
    pq.write_table(table, path, row_group_size=700)
    assert read(path, Columns("t", "k")) == [Record(str(n), f"text {n}") for n in range(3000)]
    assert count([str(path)], texts=False) == 3000
    with pytest.raises(BatchError, match="no column 'text'; it has t, k, other"):
        read(path)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"plain\nlines\n", [Record("1", "plain"), Record("2", "lines")]),
        (b'{"text": "json"}\n{"text": "lines"}', [Record("1", "json"), Record("2", "lines")]),
        (b"", []),
    ],
)
def test_stdin_is_json_lines_when_it_begins_with_an_object(
    data: bytes, wanted: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(data)))
    assert list(records([], TEXT, texts=False)) == wanted


@pytest.mark.parametrize(
    ("inputs", "is_one"),
    [
        ([], True),
        (["-"], True),
        (["a.jsonl"], True),
        (["A.TXT"], True),
        (["hello world"], False),
        (["a.txt", "b"], True),  # which is refused
        (["see a.txt"], False),
    ],
)
def test_arguments_are_texts_unless_they_name_one_input(inputs: list[str], is_one: bool) -> None:
    assert is_file(inputs) is is_one


def test_a_file_of_another_kind_is_not_taken_for_a_text(tmp_path: Path) -> None:
    other, known = tmp_path / "notes.csv", tmp_path / "a.txt"
    for path in (other, known):
        path.write_text("a,b\n")
    assert is_file([str(other)])
    with pytest.raises(UseError, match=r"what kind of file is that\? .* sie \.\.\. < "):
        records([str(other)], Columns(), texts=False)
    assert is_file([str(known), str(other)])
    with pytest.raises(UseError, match="one input at a time; found 2"):
        records([str(known), str(other)], Columns(), texts=False)


def test_texts_of_arguments_are_numbered() -> None:
    assert list(records(["a", "b"], TEXT, texts=True)) == [Record("1", "a"), Record("2", "b")]


def test_a_folder_is_refused_instead_of_its_name_being_embedded(tmp_path: Path) -> None:
    assert not is_file([str(tmp_path)])
    with pytest.raises(UseError, match=f"'{tmp_path}' is a folder; name one file"):
        records([str(tmp_path)], TEXT, texts=True)
    with pytest.raises(UseError, match="is a folder"):
        records(["a text", str(tmp_path)], TEXT, texts=True)


def test_a_file_that_is_not_there_is_told_as_it_was_typed(tmp_path: Path) -> None:
    for name in ("none.txt", "folder/none.jsonl"):
        path = str(tmp_path / name)
        with pytest.raises(UseError, match=f"no file '{path}': there is no"):
            records([path], TEXT, texts=False)
        assert count([path], texts=False) is None


@pytest.mark.parametrize(
    ("texts", "is_meant"),
    [
        (["Makefile.md"], True),
        (["docs/none"], True),
        (["hello"], False),
        (["3.14"], False),
        (["The end."], False),
        (["http://x/y.html"], False),
        (["a.md", "b.md"], False),
    ],
)
def test_a_lone_word_like_a_path_is_noticed(texts: list[str], *, is_meant: bool) -> None:
    assert misspelt(texts) == (texts[0] if is_meant else None)
