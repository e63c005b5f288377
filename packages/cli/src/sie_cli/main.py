"""The `sie` command. Each command imports what it needs when it runs, so that `sie --help` is quick."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sie_cli.batch import cli as batch
from sie_cli.doctor import cli as doctor
from sie_cli.failing import INTERRUPTED, USAGE, fail, one_line
from sie_cli.look import cli as look
from sie_cli.options import GlobalApiKey, GlobalUrl, Json, given_once
from sie_protocol.versions import VERSION

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
batch.register(app)
look.register(app)
doctor.register(app)


def _number(is_asked: bool) -> None:
    if is_asked:
        print(f"sie {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    url: GlobalUrl = None,
    api_key: GlobalApiKey = None,
    _: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", is_eager=True, callback=_number)
    ] = False,
) -> None:
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
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run it in the background; sie down ends it.")] = False,
    as_json: Json = False,
) -> None:
    """Run a cluster of local processes until Ctrl-C: routers, and workers as requests ask for them."""
    if detach:
        _detach(file, port, as_json=as_json)
        return
    if as_json:
        fail("up tells JSON with --detach only", USAGE)
    import asyncio  # noqa: PLC0415 - see the module's docstring

    from rich.console import Console  # noqa: PLC0415

    from sie_cli import up as command  # noqa: PLC0415
    from sie_cli.cluster import ClusterError  # noqa: PLC0415
    from sie_cli.ports import PortInUseError  # noqa: PLC0415

    try:
        asyncio.run(command.up(command.read_file(file, port), Console(highlight=False)))
    except (OSError, ValueError, ClusterError, PortInUseError) as error:
        fail(error)


def _detach(file: Path | None, port: int | None, *, as_json: bool) -> None:
    with one_line():
        from sie_cli import detach, settings  # noqa: PLC0415 - see the module's docstring

        arguments = [] if file is None else ["--file", str(file.resolve())]
        arguments += [] if port is None else ["--port", str(port)]
        running = detach.start(settings.load().state, arguments)
        if as_json:
            print(json.dumps({"pid": running.pid, "urls": running.urls, "log": running.log}))
        else:
            print(f"SIE answers on {' '.join(running.urls)}; log: {running.log}; sie down stops it")


@app.command()
def down(as_json: Json = False) -> None:
    """End the cluster that `sie up --detach` started; without one, do nothing."""
    with one_line():
        from sie_cli import detach, settings  # noqa: PLC0415 - see the module's docstring

        running = detach.stop(settings.load().state)
        if as_json:
            print(json.dumps({"stopped": None if running is None else running.pid}))
        else:
            print("no cluster runs in the background" if running is None else "everything is stopped")


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
def version(as_json: Json = False) -> None:
    """Show the versions of what is installed."""
    from sie_cli.version import versions  # noqa: PLC0415 - see the module's docstring

    if as_json:
        print(json.dumps(versions()))
        return
    for name, number in versions().items():
        print(f"{name} {number}")
