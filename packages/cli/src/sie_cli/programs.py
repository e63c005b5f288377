"""The command lines and environments of the routers and workers of a local cluster. Pure: values in, values out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_cli.clusterfile import Pool
from sie_cli.ports import HOST
from sie_cli.process import Program

ESTIMATED_WAIT_S = 10  # told in a 202; a worker process with its model on a laptop
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class Executables:
    """The commands to run, each with leading arguments if it has some; the real ones lie beside the interpreter."""

    router: tuple[str, ...]
    server: tuple[str, ...]

    @classmethod
    def beside(cls, interpreter: str) -> "Executables":
        """`sie-router` and `sie-server` of the environment that this interpreter belongs to."""
        folder = Path(interpreter).parent
        return cls((str(folder / "sie-router"),), (str(folder / "sie-server"),))


def url_of(port: int) -> str:
    """Address of a process of the cluster."""
    return f"http://{HOST}:{port}"


def router_program(
    executable: Sequence[str],
    port: int,
    *,
    workers: Sequence[str],
    pools: Sequence[Pool],
    retry_after_s: int,
    catalog: Path | None,
    inherited: Mapping[str, str],
) -> Program:
    """A router that knows every worker address the cluster can ever use, and the group of every pool.

    `catalog`: folder with `models` and `bundles`; None leaves the choice to the environment.
    """
    argv = [*executable, "serve", "--host", HOST, "--port", str(port), "--retry-after-s", str(retry_after_s)]
    argv += [part for url in workers for part in ("--worker", url)]
    argv += [part for pool in pools for part in ("--group", f"{pool.profile}:{pool.bundle}")]
    if catalog is not None:
        argv += ["--models-dir", str(catalog / "models"), "--bundles-dir", str(catalog / "bundles")]
    profiles = dict.fromkeys(pool.profile for pool in pools)
    env = {
        **inherited,
        "SIE_ROUTER_CONFIGURED_GPUS": ",".join(profiles),
        "SIE_ROUTER_ESTIMATED_WAIT_S": str(max(ESTIMATED_WAIT_S, retry_after_s)),
    }
    return Program(tuple(argv), env)


def worker_program(
    executable: Sequence[str], port: int, pool: Pool, name: str, inherited: Mapping[str, str]
) -> Program:
    """One worker of a pool, named like the pod it would be."""
    argv = (*executable, "serve", "--host", HOST, "--port", str(port))
    env = {**inherited, "SIE_MACHINE_PROFILE": pool.profile, "SIE_BUNDLE": pool.bundle, "POD_NAME": name}
    return Program(argv, env)


def share_threads(inherited: Mapping[str, str], *, cores: int, workers: int) -> Mapping[str, str]:
    """The environment of a worker that starts as one of `workers` on this machine.

    A worker alone may use every core, which is what its libraries do by default. Several would each start as many
    threads as there are cores and slow each other down, so they get an equal share. The user's own setting wins.
    """
    if workers <= 1 or THREADS in inherited:
        return inherited
    return {**inherited, THREADS: str(max(1, cores // workers))}
