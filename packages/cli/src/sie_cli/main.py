"""The `sie` command. Each command imports what it needs when it runs, so that `sie --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from sie_cli.batch import cli as batch
from sie_cli.failing import INTERRUPTED, fail
from sie_cli.look import cli as look
from sie_cli.options import GlobalApiKey, GlobalUrl, given_once

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
batch.register(app)
look.register(app)


@app.callback()
def main(context: typer.Context, url: GlobalUrl = None, api_key: GlobalApiKey = None) -> None:
    """SIE: small AI models on a cluster that scales from zero, here or on Kubernetes."""
    context.default_map = given_once(app, {"url": url, "api_key": api_key})


@app.command()
def up(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Cluster file; by default the packaged one.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=0, max=65535, help="Port of the first router; 0: any free one.")
    ] = None,
) -> None:
    """Run a cluster of local processes until Ctrl-C: routers, and workers as requests ask for them."""
    import asyncio  # noqa: PLC0415 - see the module's docstring

    from rich.console import Console  # noqa: PLC0415

    from sie_cli import up as command  # noqa: PLC0415
    from sie_cli.cluster import ClusterError  # noqa: PLC0415
    from sie_cli.ports import PortInUseError  # noqa: PLC0415

    try:
        asyncio.run(command.up(command.read_file(file, port), Console(highlight=False)))
    except (OSError, ValueError, ClusterError, PortInUseError) as error:
        fail(error)


@app.command()
def demo() -> None:
    """Start a local cluster at zero, embed a real text through the SDK, show each phase, stop everything."""
    import asyncio  # noqa: PLC0415 - see the module's docstring

    from rich.console import Console  # noqa: PLC0415

    from sie_cli import demo as command  # noqa: PLC0415
    from sie_cli.cluster import ClusterError  # noqa: PLC0415
    from sie_cli.ports import PortInUseError  # noqa: PLC0415

    try:
        if asyncio.run(command.demo(Console(highlight=False))):
            raise typer.Exit(INTERRUPTED)
    except (command.DemoError, ClusterError, PortInUseError) as error:
        fail(error)


@app.command()
def version() -> None:
    """Show the versions of what is installed."""
    from sie_cli.version import versions  # noqa: PLC0415 - see the module's docstring

    for name, number in versions().items():
        print(f"{name} {number}")
