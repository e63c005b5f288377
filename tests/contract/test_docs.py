"""The documentation says what the code does, where a test can tell."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

import models_table
from served_worker import served, write_catalog
from sie_protocol import headers
from sie_protocol.compat import COMPAT_PATHS
from sie_protocol.errors import RULES, ErrorCode
from sie_router.api.metrics import RouterCollector
from sie_router.api.metrics_flow import FlowCollector
from sie_router.app import RouterApp
from sie_router.settings import Settings as Router
from sie_server import app as sie_worker
from sie_server import cli, settings
from sie_server.settings import Settings as Worker

HEADER = re.compile(r"[A-Z][A-Za-z]+(-[A-Za-z]+)+|Authorization|Prefer")
ROOT = Path(__file__).parents[2]
WORKER = (ROOT / "docs/worker.md").read_text()
WIRE = (ROOT / "docs/wire-protocol.md").read_text()


@pytest.mark.parametrize("code", list(ErrorCode))
def test_the_table_of_refusals_is_the_table_of_the_code(code: ErrorCode) -> None:
    rule = RULES[code]
    retry = f"{rule.retry_after_s} s" if rule.retryable else "no"
    assert f"| `{code}` | {rule.status} | {retry} |" in WIRE


def test_the_table_of_models_is_that_of_the_catalogue() -> None:
    assert models_table.main(["--check"]) == 0, "run `make format`"


@pytest.mark.parametrize("name", [value for value in vars(headers).values() if HEADER.fullmatch(str(value))])
def test_every_header_is_documented(name: str) -> None:
    assert re.search(rf"`{name}[`:]", WIRE)


def documented(column: int) -> set[tuple[str, str]]:
    """Method and path of each row of the table of routes that says something in this column."""
    table = WIRE.partition("## Routes")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return {
        (row[0].split()[0], path.partition("?")[0])
        for row in rows[2:]
        if row[column]
        for path in re.findall(r"`([^`]+)`", row[0])
    }


def described(document: dict[str, Any]) -> set[tuple[str, str]]:
    """Method and path of each operation of an OpenAPI document, and the routes that serve the document."""
    own = {("GET", path) for path in ("/docs", "/redoc", "/openapi.json")}
    return own | {(method.upper(), path) for path, each in document["paths"].items() for method in each}


async def test_the_table_of_routes_is_that_of_router_and_worker() -> None:
    router = RouterApp(Router(), print)._build()
    page = ("GET", "/")  # of this, and of sockets, OpenAPI does not speak
    assert documented(1) == described(router.openapi()) | {page, ("WS", headers.CLUSTER_STATUS)}
    async with (
        sie_worker.worker(Worker(device="cpu")) as worker,
        httpx.AsyncClient(transport=httpx.ASGITransport(worker.app), base_url="http://worker") as client,
    ):
        document = (await client.get("/openapi.json")).json()
    assert documented(2) == described(document) | {page, ("WS", headers.WORKER_STATUS)}


@pytest.mark.parametrize("package", ["router", "server", "cli", "sdk"])
def test_the_variables_that_a_package_reads_are_documented_and_no_others(package: str) -> None:
    (settings,) = (ROOT / "packages" / package / "src").rglob("settings.py")
    read = set(re.findall(r'"((?:SIE|HF|OTEL)_[A-Z0-9_]*[A-Z0-9])"', settings.read_text()))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")]
    text = "\n".join(page.read_text() for page in pages)
    assert read
    assert {name for name in read if not re.search(rf"[`$]{name}\b", text)} == set()
    if package == "router":
        assert set(re.findall(r"\bSIE_ROUTER_[A-Z0-9_]+[A-Z0-9]\b", text)) <= read


def test_the_defaults_of_the_router_are_those_of_its_readme() -> None:
    rows = re.findall(
        r"^\| `(SIE_ROUTER_\w+)` \| (\d+) \|", (ROOT / "packages/router/README.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 12
    wrong = {name: told for name, told in rows if getattr(Router(), name[len("SIE_ROUTER_") :].lower()) != float(told)}
    assert wrong == {}


def test_every_metric_of_the_router_is_on_the_monitoring_page() -> None:
    router = RouterApp(Router(), print)
    collector = RouterCollector(
        router.counters, router.store.snapshot, router.inflight, router.health.ejections, lambda: 0.0, lambda: 0.0
    )
    families = [*collector.collect(), *FlowCollector(router.parked, router.retries).collect()]
    page = (ROOT / "docs/deployment/monitoring.md").read_text()
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert {name for name in names if f"`{name}`" not in page} == set()


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


def worker_settings() -> list[list[str]]:
    """The rows of the worker's settings: variable, flags, default."""
    table = WORKER.partition("| variable | flag |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in table.splitlines()[2:]]
    return [[cell.strip("`") for cell in row] for row in rows]


def test_the_variables_of_the_worker_are_those_of_its_page_and_a_documented_default_changes_nothing() -> None:
    defaults = {row[0]: row[2] for row in worker_settings() if row[0]}
    assert {*defaults, "HOSTNAME"} == settings.variables()
    said = {
        name: value for name, value in defaults.items() if re.fullmatch(r"[\d.]+|true|false|auto|default|info", value)
    }
    assert len(said) > len(defaults) / 2
    assert settings.read(said) == settings.read({})


def test_the_flags_of_the_worker_are_those_of_its_page() -> None:
    command = typer.main.get_command(cli.app).commands["serve"]  # type: ignore[attr-defined]
    flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    assert {flag for row in worker_settings() for flag in re.findall(r"-[-a-z]+", row[1])} == flags


async def test_every_route_of_the_worker_is_documented_and_in_its_openapi_document(tmp_path: Path) -> None:
    async with served(write_catalog(tmp_path, {"org/hash": {}})) as kit:
        document = (await kit.http.get("/openapi.json")).json()
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {("POST", f"/v1/{task}/{{model}}") for task in headers.INFERENCE_OPERATIONS} <= routes
    assert {("POST", path) for path in COMPAT_PATHS} <= routes
    cells = [row.split("|")[1] for row in WIRE.partition("## Request")[0].splitlines() if row.startswith("| ")]
    documented = {(cell.split()[0], path) for cell in cells for path in re.findall(r"`([^`]+)`", cell)}
    assert routes <= documented
