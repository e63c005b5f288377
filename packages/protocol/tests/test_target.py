import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.target import ModelRef, Target, parse_model, parse_target

NAMES = st.text(st.characters(categories=("L", "N"), include_characters="-._"), min_size=1)


@pytest.mark.parametrize(
    ("profile", "pool", "target"),
    [
        (None, None, Target()),
        ("", "", Target()),
        (" l4 ", None, Target(None, "l4")),
        ("l4", "tenant", Target("tenant", "l4")),
        ("tenant/l4", None, Target("tenant", "l4")),
        ("tenant/l4", "other", Target("tenant", "l4")),
        ("tenant/", None, Target("tenant", None)),
        ("/l4", None, Target(None, "l4")),
        ("/l4", "tenant", Target("tenant", "l4")),
        ("/", None, Target()),
        ("tenant/l4/x", None, Target("tenant", "l4/x")),
    ],
)
def test_pool_and_profile_are_read_as_documented(profile: str | None, pool: str | None, target: Target) -> None:
    assert parse_target(profile, pool) == target


@given(NAMES, NAMES)
def test_both_ways_to_say_it_mean_the_same(pool: str, profile: str) -> None:
    assert parse_target(f"{pool}/{profile}") == parse_target(profile, pool) == Target(pool, profile)


@pytest.mark.parametrize(
    ("path", "ref"),
    [
        ("BAAI/bge-m3", ModelRef("BAAI/bge-m3")),
        ("Default:/BAAI/bge-m3", ModelRef("BAAI/bge-m3", "default")),
        ("BAAI/bge-m3:sparse", ModelRef("BAAI/bge-m3:sparse")),
    ],
)
def test_a_model_keeps_its_spelling_and_loses_its_bundle(path: str, ref: ModelRef) -> None:
    assert parse_model(path) == ref


@pytest.mark.parametrize("path", ["", ":/", ":/m", "bundle:/"])
def test_a_path_without_a_model_is_refused(path: str) -> None:
    with pytest.raises(Problem) as refusal:
        parse_model(path)
    assert refusal.value.code is ErrorCode.INVALID_INPUT


@given(NAMES, st.none() | NAMES)
def test_what_is_printed_reads_back(name: str, bundle: str | None) -> None:
    ref = ModelRef(name, bundle.lower() if bundle else None)
    assert parse_model(str(ref)) == ref
