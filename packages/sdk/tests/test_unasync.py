import pytest

import unasync


def test_the_blocking_client_is_what_the_source_gives() -> None:
    assert unasync.TARGET.read_text() == unasync.generate(), "run `make format`"
    assert unasync.main(["--check"]) == 0


def test_nothing_asynchronous_is_left_and_the_rest_stays() -> None:
    source = 'async def f(self) -> X:\n    """Await it."""\n    return await g()\n'
    table = {r"\basync def\b": "def", r"\bawait ": ""}
    assert unasync.translate(source, table) == unasync.BANNER + source.replace("async ", "").replace("await ", "")


def test_a_row_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="matches nothing"):
        unasync.translate("def f(): ...\n", {r"\bnever\b": ""})


def test_something_asynchronous_that_no_row_translates_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2 still says 'async'"):
        unasync.translate("x = 1\nasync for y in z: ...\n", {})
