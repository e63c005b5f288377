"""The commands `sie models`, `pools`, `status` and `top`."""

import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sie_cli.failing import USAGE, fail, one_line, unless_nobody_listens
from sie_cli.options import DEFAULT_URL, ApiKey, Json, Url

if TYPE_CHECKING:
    from sie_cli.api import Api
    from sie_protocol.pools import PoolInfo, PoolListItem
    from sie_sdk import SIEClient

T = TypeVar("T")
DEFAULT = "default"  # the pool of all workers that nobody reserved; it has no lease
Name = Annotated[str, typer.Argument(help="The pool.")]
Once = Annotated[bool, typer.Option("--once", help="Print one frame and end; so does output that is no terminal.")]
pools = typer.Typer(help="Reserve workers for one tenant, and give them back.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(pools, name="pools")
    for command in (models, status, top):
        app.command()(command)


def models(name: Annotated[str | None, typer.Argument(help="Only names that hold this text.")] = None,
           url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:  # fmt: skip
    """List the catalogue: what each model gives, and where it is loaded."""
    from sie_cli.look import frame  # noqa: PLC0415 - `sie --help` is quick without

    found = _asked(lambda client: client.list_models(), url, api_key)
    listed = [model for model in found if (name or "").lower() in model["name"].lower()]
    if as_json:
        _print_json(listed)
    elif not listed:
        fail(f"no name of the catalogue's {len(found)} models holds '{name}'")
    else:
        _print(frame.catalogue(listed))


def status(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Tell in short how the cluster is."""
    from sie_cli.look import frame  # noqa: PLC0415 - as above

    found = _look(url, api_key)
    if as_json:
        _print_json(plain(found))
        return
    _print(frame.headline(found))
    _print(frame.demand(found))


def top(once: Once = False, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Watch pools, leases, demand, queues and workers, live; q quits."""
    from sie_cli.look import frame  # noqa: PLC0415 - as above

    if as_json:
        _print_json(plain(_look(url, api_key)))
    elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _print(frame.frame(_look(url, api_key)))
    else:
        from rich.console import Console  # noqa: PLC0415

        from sie_cli.look.top import watch  # noqa: PLC0415

        _ask(lambda api: watch(api, Console()), url, api_key)


@pools.command("list")
def list_pools(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """List your pools and the default one."""
    from sie_cli.look import frame  # noqa: PLC0415 - as above

    def both(client: "SIEClient") -> "tuple[list[PoolListItem], list[PoolInfo]]":
        listed = client.list_pools()
        infos = (client.get_pool(each["name"]) for each in listed if each["name"] != DEFAULT)
        return listed, [info for info in infos if info is not None]

    listed, leases = _asked(both, url, api_key)
    if as_json:
        _print_json([_pool(each, leases) for each in listed])
    else:
        _print(frame.pools(listed, leases, time.time()))


@pools.command("create")
def create_pool(
    name: Name,
    gpus: Annotated[list[str], typer.Option("--gpus", "-g", help="PROFILE=WORKERS, for example l4=2; repeat.")],
    bundle: Annotated[str | None, typer.Option(help="Bundle of all its workers.")] = None,
    minimum: Annotated[int, typer.Option("--minimum", min=0, help="Workers that stay warm.")] = 0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Reserve workers. The lease lasts 20 minutes from each renewal; clients that use the pool renew it."""
    wanted = dict(map(_profile_and_count, gpus))
    made = _asked(lambda client: client.create_pool(name, wanted, bundle, minimum or None), url, api_key)
    if as_json:
        _print_json(made)
    else:
        print(f"pool {made['name']}: {made['status']['state']}")


@pools.command("delete")
def delete_pool(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """End a reservation; its workers serve everybody."""
    _settle("deleted", name, _asked(lambda client: client.delete_pool(name), url, api_key), as_json=as_json)


@pools.command("renew")
def renew_pool(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Begin a pool's lease anew."""
    _settle("renewed", name, _asked(lambda client: client.renew_pool(name), url, api_key), as_json=as_json)


def plain(found: Any) -> dict[str, Any]:
    """A snapshot as JSON values."""
    import msgspec  # noqa: PLC0415 - as above

    demand = found.scrape.demand if found.scrape else {}
    return {
        "url": found.url,
        "version": found.version,
        **msgspec.to_builtins(found.health),
        "pools": [_pool(each, found.leases) for each in found.pools],
        "demand": [
            {"machine_profile": group[0], "bundle": group[1], "pool": pool, "value": value}
            for group, wishes in demand.items()
            for pool, value in wishes.items()
        ],
    }


def _pool(listed: Any, leases: Any) -> dict[str, Any]:
    own = next((info["status"]["last_renewed"] for info in leases if info["name"] == listed["name"]), None)
    return {**listed, "last_renewed": own}


def _settle(done: str, name: str, was_there: object, *, as_json: bool) -> None:
    if not was_there:
        fail(f"there is no pool '{name}'; sie pools list tells those that there are")
    if as_json:
        _print_json({"name": name, done: True})
    else:
        print(f"pool {name}: {done}")


def _profile_and_count(text: str) -> tuple[str, int]:
    profile, _, count = text.partition("=")
    if not profile or not count.isdigit():
        fail(f"--gpus '{text}' is not like l4=2", USAGE)
    return profile, int(count)


def _asked(question: "Callable[[SIEClient], T]", url: str, api_key: str | None) -> T:
    with one_line():
        from sie_sdk import SIEClient  # noqa: PLC0415 - as above

        with SIEClient(url, api_key=api_key, on_wait=unless_nobody_listens) as client:
            return question(client)
    raise AssertionError  # `one_line` raises for every error it stops


def _look(url: str, api_key: str | None) -> Any:
    from sie_cli.look.snapshot import look  # noqa: PLC0415 - as above

    return _ask(lambda api: look(api, time.time()), url, api_key)


def _ask(question: "Callable[[Api], Awaitable[T]]", url: str, api_key: str | None) -> T:
    import asyncio  # noqa: PLC0415 - as above

    async def main() -> T:
        from sie_cli.api import Api  # noqa: PLC0415

        async with Api(url, api_key) as api:
            return await question(api)

    with one_line():
        return asyncio.run(main())
    raise AssertionError  # `one_line` raises for every error it stops


def _print(renderable: Any) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above

    # A pipe has no width; nothing is cut there.
    Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200).print(renderable)


def _print_json(value: Any) -> None:
    import msgspec  # noqa: PLC0415 - as above

    print(msgspec.json.encode(value).decode())
