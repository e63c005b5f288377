"""The documentation says what the code does, where a test can tell."""

import re
from pathlib import Path

import pytest

import models_table
from sie_protocol import headers
from sie_protocol.errors import RULES, ErrorCode

ROOT = Path(__file__).parents[2]
WIRE = (ROOT / "docs/wire-protocol.md").read_text()


@pytest.mark.parametrize("code", list(ErrorCode))
def test_the_table_of_refusals_is_the_table_of_the_code(code: ErrorCode) -> None:
    rule = RULES[code]
    retry = f"{rule.retry_after_s} s" if rule.retryable else "no"
    assert f"| `{code}` | {rule.status} | {retry} |" in WIRE


def test_the_table_of_models_is_that_of_the_catalogue() -> None:
    assert models_table.main(["--check"]) == 0, "run `make format`"


@pytest.mark.parametrize("name", [value for value in vars(headers).values() if str(value).startswith("X-")])
def test_every_header_is_documented(name: str) -> None:
    assert f"`{name}`" in WIRE


PAGES = [
    page for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md", "deploy/**/*.md") for page in ROOT.glob(pattern)
]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links into the page may name: its headings, as they become addresses."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", FENCED.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [page.read_text() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))]
    named = {name for page in pages for name in re.findall(r"`make ([a-z-]+)", page)}
    assert named <= targets
