"""How commands end: exit codes, and one line that says what to do instead of a traceback."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

import typer

FAILED: Final = 1  # the cluster, a file or the network did not do what was asked; the line on stderr says what to do
USAGE: Final = 2  # the command line itself is wrong; nothing was done
INCOMPLETE: Final = 3  # done, but records were refused and set aside (--keep-going)
INTERRUPTED: Final = 130  # Ctrl-C, as shells count it


def fail(error: object, code: int = FAILED) -> NoReturn:
    """Say why on stderr and end."""
    print(f"sie: {error}", file=sys.stderr)
    raise typer.Exit(code)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turn what commands are expected to raise into one line and an exit code."""
    import httpx  # noqa: PLC0415 - `sie --help` is quick without it

    from sie_protocol.errors import Problem  # noqa: PLC0415
    from sie_sdk import SIEError  # noqa: PLC0415

    try:
        yield
    except typer.Exit:  # a RuntimeError, too
        raise
    except BrokenPipeError:  # the reader of our output, for example `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (SIEError, Problem, httpx.HTTPError, OSError, ValueError, TypeError, RuntimeError) as error:
        fail(" ".join(str(error).split()))
