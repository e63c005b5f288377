"""The command `sie-router`."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from sie_protocol.versions import VERSION

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The router of SIE.",
    context_settings={"help_option_names": ["-h", "--help"]},  # `serve -h` is its host
)
logger = logging.getLogger(__name__)


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - one parameter for each flag
    host: Annotated[str | None, typer.Option("-h", "--host", help="Address to listen on; default 0.0.0.0.")] = None,
    port: Annotated[
        int | None, typer.Option("-p", "--port", help="Port to listen on, 0: any free one; default 8080.")
    ] = None,
    worker: Annotated[
        list[str] | None, typer.Option("-w", "--worker", help="URL of a worker; dns+http: all behind a name; repeat.")
    ] = None,
    kubernetes: Annotated[
        bool | None, typer.Option("-k", "--kubernetes", help="Find workers by their Service.")
    ] = None,
    k8s_namespace: Annotated[
        str | None, typer.Option(help="Namespace of the workers; default: the router's own.")
    ] = None,
    k8s_service: Annotated[
        list[str] | None, typer.Option(help="Service of workers, repeat; default sie-worker.")
    ] = None,
    k8s_port: Annotated[str | None, typer.Option(help="Port of the workers, a number or a name; default 8080.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Cluster to use; default: the one the router runs in.")
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model files.")] = None,
    bundles_dir: Annotated[Path | None, typer.Option(help="Folder of bundle files.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="PROFILE:BUNDLE that can be started; repeat, cheapest first.")
    ] = None,
    retry_after_s: Annotated[int | None, typer.Option(help="Seconds a client is told to wait for a worker.")] = None,
    estimated_wait_s: Annotated[int | None, typer.Option(help="Seconds a new worker is expected to take.")] = None,
    pools_file: Annotated[
        Path | None, typer.Option(help="File that keeps pools over restarts, and shares them between routers.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("-l", "--log-level", help="critical, error, warning, info or debug; default info.")
    ] = None,
    json_logs: Annotated[bool | None, typer.Option("--json-logs", help="Log lines as JSON.")] = None,
    tracing: Annotated[
        bool | None, typer.Option("--tracing", help="Send spans as OTEL_* says; needs the extra otel.")
    ] = None,
) -> None:
    """Serve until SIGTERM. Flags win over SIE_ROUTER_* in the environment."""
    # Imported here: `sie-router version` and `--help` should not wait for a web framework.
    from sie_router.edge.logs import configure  # noqa: PLC0415
    from sie_router.serve import make_server  # noqa: PLC0415
    from sie_router.settings import Flags, meaningless_of_process, settings_of_process  # noqa: PLC0415

    flags = Flags(
        host=host,
        port=port,
        workers=tuple(worker or ()),
        models_dir=models_dir,
        bundles_dir=bundles_dir,
        groups=tuple(group or ()),
        retry_after_s=retry_after_s,
        estimated_wait_s=estimated_wait_s,
        pools_file=pools_file,
        log_level=log_level,
        json_logs=json_logs,
        tracing=tracing,
        kubernetes=kubernetes,
        k8s_namespace=k8s_namespace,
        k8s_services=tuple(k8s_service or ()),
        k8s_port=k8s_port,
        kubeconfig=kubeconfig,
    )
    try:
        settings = settings_of_process(flags)
        configure(settings.log_level, json_lines=settings.json_logs)
        for name, meant in meaningless_of_process().items():
            logger.warning("the router knows no variable %s: did you mean %s?", name, meant)
        server = make_server(settings)
    except ValueError as error:
        typer.echo(f"sie-router: {error}", err=True)
        raise typer.Exit(2) from error
    server.run()
    sys.exit(0 if server.started else 1)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(VERSION)
