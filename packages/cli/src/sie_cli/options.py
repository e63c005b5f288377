"""Options that many commands share, each spelled once."""

from typing import Annotated, Any, Final

import typer
import typer.models

from sie_cli.failing import USAGE, fail

DEFAULT_URL: Final = "http://localhost:8080"


def an_address(text: str | None) -> str | None:
    """For options that name a server: the address without a slash at its end, or the end with exit code 2."""
    from sie_sdk.settings import checked_url  # noqa: PLC0415 - `sie --help` is quick without

    try:
        return None if text is None else checked_url(text)
    except ValueError as error:
        fail(error, USAGE)


Url = Annotated[str, typer.Option("--url", callback=an_address, help="A router, or a worker where that is enough.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="Token, if the cluster asks for one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
GlobalUrl = Annotated[
    str | None, typer.Option("--url", envvar="SIE_BASE_URL", help=f"The cluster's address; default {DEFAULT_URL}.")
]
GlobalApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="SIE_API_KEY", show_envvar=True, help="Token for the cluster.")
]
Gpu = Annotated[str | None, typer.Option("--gpu", "-g", help="Machine profile, for example l4.")]
Pool = Annotated[str | None, typer.Option("--pool", "-p", help="Resource pool to run in.")]


def given_once(app: typer.Typer, values: dict[str, str | None]) -> dict[str, Any]:
    """What stood before the command, or in the environment, as the defaults of every command below `app`."""
    found = {name: value for name, value in values.items() if value is not None}
    commands: dict[str, Any] = {_name(command): found for command in app.registered_commands}
    groups = {str(group.name): group.typer_instance for group in app.registered_groups if group.typer_instance}
    return commands | {name: given_once(inner, values) for name, inner in groups.items()}


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or (command.callback.__name__.replace("_", "-") if command.callback else "")


def target(gpu: str | None, pool: str | None) -> str | None:
    """What the SDK calls `gpu`: "pool/profile", either alone, or nothing."""
    if pool is None:
        return gpu
    return f"{pool}/{gpu or ''}"
