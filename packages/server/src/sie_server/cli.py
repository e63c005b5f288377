"""The command `sie-server`."""

import asyncio
import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sie_protocol.versions import VERSION
from sie_server.host_memory import configure_malloc
from sie_server.logs import LEVELS, configure
from sie_server.settings import Settings, device_name, environment, meaningless, name_list, read, use_huge_pages

log = logging.getLogger(__name__)
app = typer.Typer(
    help="The worker of SIE.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(VERSION)


@app.command()
def serve(  # noqa: PLR0913 - one parameter per flag
    *,
    port: Annotated[int | None, typer.Option("--port", "-p", min=1, max=65535, help="Port; default 8080.")] = None,
    host: Annotated[str | None, typer.Option(help="Address; default 0.0.0.0.")] = None,
    device: Annotated[str | None, typer.Option("--device", "-d", help="auto, cpu, cuda or mps; default auto.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model files; default: our own.")] = None,
    bundles_dir: Annotated[Path | None, typer.Option(help="Folder of bundle files; default: our own.")] = None,
    bundle: Annotated[str | None, typer.Option("--bundle", "-b", help="Bundle to serve; default 'default'.")] = None,
    models: Annotated[str | None, typer.Option("--models", "-m", help="Serve only these, separated by ','.")] = None,
    preload: Annotated[
        str | None, typer.Option(help="Load these before the worker is ready, separated by ','.")
    ] = None,
    local_cache: Annotated[Path | None, typer.Option(help="Folder of downloaded models; default ~/.cache/sie.")] = None,
    cluster_cache: Annotated[
        str | None, typer.Option(help="Models near the workers: gs://, s3://, abfss:// or a path.")
    ] = None,
    cache_max_bytes: Annotated[int | None, typer.Option(min=1, help="Most that the local cache holds.")] = None,
    hf_fallback: Annotated[
        bool | None, typer.Option("--hf-fallback/--no-hf-fallback", help="Ask the Hugging Face hub last; default yes.")
    ] = None,
    json_logs: Annotated[bool | None, typer.Option("--json-logs/--text-logs", help="Log as JSON lines.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", "-l", help="debug, info, warning, error.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The same as --log-level debug.")] = False,
    tracing: Annotated[
        bool | None, typer.Option("--tracing", help="Send spans as OTEL_* says; needs the extra otel.")
    ] = None,
) -> None:
    """Serve models over HTTP. Flags win over SIE_* environment variables."""
    flags = {
        "port": port,
        "host": host,
        "device": device,
        "models_dir": models_dir,
        "bundles_dir": bundles_dir,
        "bundle": bundle and bundle.lower(),
        "models": name_list(models) if models else None,
        "preload": name_list(preload) if preload else None,
        "local_cache": local_cache,
        "cluster_cache": cluster_cache,
        "cache_max_bytes": cache_max_bytes,
        "hf_fallback": hf_fallback,
        "json_logs": json_logs,
        "tracing": tracing,
        "log_level": "debug" if verbose else log_level and log_level.lower(),
    }
    try:
        settings = _settings({key: value for key, value in flags.items() if value is not None})
        configure(settings.log_level, as_json=settings.json_logs)
        for name, advice in meaningless(environment()).items():
            log.warning("the worker knows no variable %s: %s", name, advice)
        _run(settings)
    except ValueError as error:
        _fail(str(error), error)


@app.command()
def openapi(
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default: print it.")] = None,
    indent: Annotated[int, typer.Option(min=0, max=16, help="Spaces of one level; 0: all on one line.")] = 2,
) -> None:
    """Write the OpenAPI document of the worker's routes."""
    from sie_server.api.routes import document  # noqa: PLC0415 - `version` and `--help` need no framework

    _write(json.dumps(document(), indent=indent or None, sort_keys=True), output)


@app.command()
def resolve_deps(
    *,
    bundle: Annotated[
        str | None, typer.Option("--bundle", "-b", help="All models of this bundle; default 'default'.")
    ] = None,
    models: Annotated[str | None, typer.Option("--models", "-m", help="Only these, separated by ','.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of model files; default: our own.")] = None,
    bundles_dir: Annotated[Path | None, typer.Option(help="Folder of bundle files; default: our own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the models and adapters.")] = False,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="For machines without an accelerator; today that changes nothing.")
    ] = False,
) -> None:
    """Print what models need installed, as PEP 508 requirements. Flags win over SIE_* environment variables."""
    from sie_server.catalog_files import read_catalog  # noqa: PLC0415 - as above
    from sie_server.requirements import chosen, resolve  # noqa: PLC0415 - as above

    del cpu  # no adapter needs more on an accelerator than on a CPU
    if bundle and models:
        _fail("--bundle and --models exclude each other; give one of them")
    try:
        own = read(environment())
        catalog = read_catalog(models_dir or own.models_dir, bundles_dir or own.bundles_dir)
        named = name_list(models) if models else ()
        found = resolve(chosen(catalog, (bundle or own.bundle).lower(), named))
    except ValueError as error:
        _fail(str(error), error)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(found.requirements))


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(f"{text}\n")
    except OSError as error:
        _fail(f"'{output}' cannot be written: {error.strerror}", error)


def _fail(message: str, cause: Exception | None = None) -> NoReturn:
    typer.echo(f"sie-server: {message}", err=True)
    raise typer.Exit(1) from cause


def _settings(flags: dict[str, Any]) -> Settings:
    settings = dataclasses.replace(read(environment()), **flags)
    try:
        device_name(settings.device)
    except ValueError as error:
        raise ValueError(f"--device is '{settings.device}': {error}") from error
    if settings.log_level not in LEVELS:
        raise ValueError(f"--log-level is '{settings.log_level}'; expected one of {', '.join(LEVELS)}")
    return settings


def _run(settings: Settings) -> None:
    use_huge_pages()
    configure_malloc()
    import uvloop  # noqa: PLC0415 - `version` and `--help` need none of this

    from sie_server.app import serve as serve_app  # noqa: PLC0415 - the same

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_app(settings))
