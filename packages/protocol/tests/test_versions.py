import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.errors import RULES, ErrorCode, Problem, envelope
from sie_protocol.headers import ERROR_CODE, RETRY_AFTER
from sie_protocol.versions import VERSION, Dialect, dialect_for, envelope_for, is_skewed, parse_version

NUMBERS = st.integers(0, 50)
PACKAGES = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("version", "dialect"),
    [
        (None, Dialect(202, "router")),
        ("unknown", Dialect(202, "router")),
        ("0.1.10", Dialect(202, "router", None, 400)),
        ("0.2.0", Dialect(202, "router", None, 400)),
        ("0.3.0", Dialect(202, "gateway", None, 400)),
        ("0.6.4", Dialect(202, "gateway", None, 400)),
        ("0.6.5", Dialect(503, "gateway", ErrorCode.MODEL_LOADING)),
        ("0.8.3", Dialect(503, "gateway", ErrorCode.MODEL_LOADING)),
        ("0.9.0", Dialect(503, "gateway", ErrorCode.QUEUE_UNAVAILABLE)),
        ("0.10.1", Dialect(503, "gateway", ErrorCode.QUEUE_UNAVAILABLE)),
        ("1.0.0rc1", Dialect(503, "gateway", ErrorCode.QUEUE_UNAVAILABLE)),
    ],
)
def test_each_generation_of_clients_hears_its_own_dialect(version: str | None, dialect: Dialect) -> None:
    assert dialect_for(version) == dialect


@pytest.mark.parametrize("code", list(ErrorCode))
@pytest.mark.parametrize("version", [None, VERSION, "0.6.4", "0.6.5", "0.8.3", "0.9.0", "0.10.1"])
def test_every_published_client_tries_again_what_can_pass_and_nothing_else(
    version: str | None, code: ErrorCode
) -> None:
    problem = Problem(code, "text", details={"fact": 1})
    shape = envelope_for(problem, version)
    headers, inner = dict(shape.headers), shape.body["error"]
    assert (inner["message"], inner["fact"], inner["code"]) == ("text", 1, headers[ERROR_CODE])
    assert inner.get("reason", inner["code"]) == code, "the honest code is there for who reads it"
    if version is None:
        assert shape == envelope(problem)
    elif shape.status == 503 and code in NEEDED:
        assert RULES[code].retryable is retries(version, inner["code"], has_delay=RETRY_AFTER in headers)


# Without the one that is only heard, and the one that ends the call of clients from 0.6.5 to 0.7.
NEEDED = set(ErrorCode) - {ErrorCode.QUEUE_FULL, ErrorCode.QUEUE_UNAVAILABLE}


def retries(version: str, code: str, *, has_delay: bool) -> bool:
    """What a published client does about a 503, as read in its source."""
    numbers = parse_version(version) or (0, 0, 0)
    if numbers < (0, 6, 5):
        return True
    known = {"PROVISIONING", "MODEL_LOADING", "LORA_LOADING", "RESOURCE_EXHAUSTED"}
    return code in known or (numbers >= (0, 9, 0) and code == "QUEUE_UNAVAILABLE" and has_delay)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_version_reads_back_as_its_numbers(major: int, minor: int, patch: int) -> None:
    assert parse_version(f"{major}.{minor}.{patch}") == (major, minor, patch)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_skew_is_symmetric_and_starts_beyond_one_minor(a: int, b: int, c: int, d: int) -> None:
    skewed = is_skewed(f"{a}.{b}.0", f"{c}.{d}.9")
    assert skewed is is_skewed(f"{c}.{d}.9", f"{a}.{b}.0")
    assert skewed is (a != c or abs(b - d) > 1)


def test_nobody_is_skewed_from_a_version_that_cannot_be_read() -> None:
    assert not is_skewed(VERSION, "unknown")
    assert not is_skewed(None, VERSION)


def test_all_distributions_have_one_version_and_pin_each_other_to_it() -> None:
    for file in PACKAGES.glob("*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        assert project["version"] == VERSION, file
        ours = [each for each in project["dependencies"] if re.match(r"sie(-\w+)?\b", each)]
        assert all(each.endswith(f"=={VERSION}") for each in ours), file


@pytest.mark.parametrize("text", ["9" * 5000 + ".1", "1." + "9" * 5000, "0.1." + "9" * 5000])
def test_a_version_of_any_length_is_read_or_not_and_never_fails(text: str) -> None:
    assert dialect_for(text)
    assert is_skewed(VERSION, text) in (True, False)
