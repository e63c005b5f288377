import json
import logging
import sys

from sie_protocol.log_lines import formatter


def test_a_json_line_is_one_line_whatever_it_says_and_has_the_documented_keys() -> None:
    record = logging.LogRecord("sie_x.y", logging.WARNING, "x.py", 1, "a\nb %s", ("c",), None)
    line = formatter(as_json=True).format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "timestamp": record.created,
        "level": "WARNING",
        "logger": "sie_x.y",
        "message": "a\nb c",
    }


def test_a_json_line_has_the_traceback_of_an_exception() -> None:
    try:
        int("why")
    except ValueError:
        record = logging.LogRecord("sie_x", logging.ERROR, "x.py", 1, "failed", None, sys.exc_info())
    line = json.loads(formatter(as_json=True).format(record))
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("'why'")
