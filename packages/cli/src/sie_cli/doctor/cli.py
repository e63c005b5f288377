"""The command `sie doctor`."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sie_cli.failing import FAILED, one_line
from sie_cli.options import DEFAULT_URL, ApiKey, Gpu, Json, Pool, Url, an_address

if TYPE_CHECKING:
    from sie_cli.doctor.checks import Finding
    from sie_cli.doctor.facts import Asked


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(  # noqa: PLR0913 - the documented options
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to ask for one answer; without it nobody is asked.")
    ] = None,
    gpu: Gpu = None,
    pool: Pool = None,
    *,
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", callback=an_address, help="Address of the Prometheus that the autoscaler reads."),
    ] = None,
    routers: Annotated[
        int | None, typer.Option("--routers", min=1, help="How many routers Prometheus should scrape.")
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0.0, help="Longest time in seconds for a worker to come.")
    ] = 60.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Find the broken link between a request and its answer, and say how to mend it. Asks MODEL for one real answer."""
    with one_line():
        from sie_cli.doctor.checks import is_sound  # noqa: PLC0415 - `sie --help` is quick without
        from sie_cli.doctor.facts import Asked  # noqa: PLC0415
        from sie_protocol.versions import VERSION  # noqa: PLC0415

        asked = Asked(url, model or "", VERSION, gpu, pool, bool(api_key), prometheus, routers, wait)
        findings = _examine(asked, api_key)
        _print(findings, as_json=as_json)
        if not is_sound(findings):
            raise typer.Exit(FAILED)


def _examine(asked: "Asked", api_key: str | None) -> "Sequence[Finding]":
    import asyncio  # noqa: PLC0415 - as above

    from rich.console import Console  # noqa: PLC0415

    from sie_cli.api import Api  # noqa: PLC0415
    from sie_cli.doctor.checks import diagnose  # noqa: PLC0415
    from sie_cli.doctor.gather import gather  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)

    async def main() -> "Sequence[Finding]":
        with console.status("looking") as status:
            async with Api(asked.url, api_key) as api:
                return diagnose(await gather(api, asked, time.monotonic, status.update))

    return asyncio.run(main())


def _print(findings: "Sequence[Finding]", *, as_json: bool) -> None:
    if as_json:
        import msgspec  # noqa: PLC0415 - as above

        print(msgspec.json.encode(list(findings)).decode())
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    styles = {"ok": "green", "broken": "bold red", "skipped": "dim"}
    console = Console(highlight=False, soft_wrap=True, file=sys.stdout)
    for finding in findings:
        console.print(
            Text.assemble((f"{finding.verdict:8}", styles[finding.verdict]), f"{finding.link:11}", finding.found)
        )
        if finding.fix:
            console.print(Text.assemble((f"{'to do':8}", "yellow"), " " * 11, finding.fix))
