"""How commands end: exit codes, and one line that says what to do instead of a traceback."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import typer

if TYPE_CHECKING:
    from sie_sdk import SIEError, WaitEvent

FAILED: Final = 1  # the cluster, a file or the network did not do what was asked; the line on stderr says what to do
USAGE: Final = 2  # the command line itself is wrong; nothing was done
INCOMPLETE: Final = 3  # done, but records were refused and set aside (--keep-going)
INTERRUPTED: Final = 130  # Ctrl-C, as shells count it

UNREACHABLE: Final = "sie up starts a cluster here, --url or SIE_BASE_URL names another, sie doctor looks closer"
_NEXT_STEP: Final = {
    "CONNECT_FAILED": UNREACHABLE,
    "CONNECT_IMPOSSIBLE": UNREACHABLE,
    "UNAUTHENTICATED": "pass --api-key or set SIE_API_KEY",
    "MODEL_NOT_FOUND": "sie models lists what is served",
    "POOL_NOT_FOUND": "sie pools create makes it",
    "PROVISIONING": "--wait waits longer; sie doctor tells why no worker comes",
    "MODEL_LOADING": "--wait waits longer",
    "LORA_LOADING": "--wait waits longer",
    "NOT_FOUND": "a worker has no such thing: point --url to the router",
    "TIMED_OUT": "sie doctor looks closer",
}


class UseError(RuntimeError):
    """The command line asks for what cannot be; nothing was done."""


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
    except UseError as error:
        fail(error, USAGE)
    except SIEError as error:
        fail(" ".join(_in_our_words(error).split()))
    except (Problem, httpx.HTTPError, OSError, ValueError, TypeError, RuntimeError) as error:
        fail(" ".join(str(error).split()))


def _in_our_words(error: "SIEError") -> str:
    """The SDK's message; what to do next is another thing for who types commands than for who writes Python."""
    step = _NEXT_STEP.get(error.code or "")
    if error.code == "MODEL_NOT_FOUND" and not error.next_step:  # the names that were probably meant stand there
        step = None
    return f"{str(error).removesuffix(f'; {error.next_step}')}; {step}" if step else str(error)


def unless_nobody_listens(event: "WaitEvent") -> None:
    """For `on_wait`: who types a command wants to hear of a wrong address now, not when the time is spent."""
    if event.reason == "CONNECT_FAILED":
        raise RuntimeError(f"{event.message}; {UNREACHABLE}")
