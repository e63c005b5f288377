import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.versions import VERSION, Dialect, dialect_for, is_skewed, parse_version

NUMBERS = st.integers(0, 50)
PACKAGES = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("version", "dialect"),
    [
        (None, Dialect(202, "router")),
        ("unknown", Dialect(202, "router")),
        ("0.1.10", Dialect(202, "router")),
        ("0.2.0", Dialect(202, "router")),
        ("0.3.0", Dialect(202, "gateway")),
        ("0.6.4", Dialect(202, "gateway")),
        ("0.6.5", Dialect(503, "gateway")),
        ("0.10.1", Dialect(503, "gateway")),
        ("1.0.0rc1", Dialect(503, "gateway")),
    ],
)
def test_each_generation_of_clients_hears_its_own_dialect(version: str | None, dialect: Dialect) -> None:
    assert dialect_for(version) == dialect


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
