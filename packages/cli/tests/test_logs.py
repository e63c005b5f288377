from pathlib import Path

from sie_cli.logs import LIMIT_BYTES, bound, log_tail, tail


def test_the_tail_is_the_last_lines_of_a_log_however_long(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("".join(f"line {n}\n" for n in range(50_000)))
    assert tail(path, 2) == "line 49998\nline 49999"


def test_a_log_that_is_missing_or_empty_says_so_and_where_it_would_be(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert log_tail(path) == f"(it wrote nothing)\nWhole log: {path}"


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"\xff\xfe ok\n")
    assert tail(path, 1).endswith(" ok")


def test_a_log_over_its_limit_moves_aside_and_its_writer_goes_on_in_the_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * LIMIT_BYTES)
        bound(path)
        assert path.stat().st_size == LIMIT_BYTES
        writer.write(b"b")
        bound(path)
        writer.write(b"c")
    assert path.read_bytes() == b"c"
    assert (tmp_path / "x.log.1").stat().st_size == LIMIT_BYTES + 1
