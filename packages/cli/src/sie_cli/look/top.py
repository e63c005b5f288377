"""`sie top`: a snapshot a second until q or Ctrl-C."""

import asyncio
import contextlib
import os
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sie_cli.api import Api, RefusedError
from sie_cli.look.frame import frame
from sie_cli.look.snapshot import look

EVERY_S: Final = 1.0
QUIT: Final = frozenset("qQ\x1b\x03\x04")  # q, Escape, Ctrl-C, Ctrl-D


async def watch(api: Api, console: Console) -> None:
    """Show the cluster until a key of `QUIT`. A router that is away for a while leaves its last frame with a remark."""
    quitting = asyncio.Event()
    with _keys(quitting), Live(console=console, screen=True, auto_refresh=False) as live:
        shown = Group(Text(f"asking {api.url} ..."))
        while not quitting.is_set():
            try:
                shown = frame(await look(api, time.time()))
                remark = Text("q quits", "dim")
            except RefusedError as error:
                remark = Text(str(error), "red")
            live.update(Group(shown, Text(), remark), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await quitting.wait()


@contextlib.contextmanager
def _keys(quitting: asyncio.Event) -> Iterator[None]:
    """Read single keys from the terminal, and leave it as it was."""
    keyboard, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(keyboard)

    def pressed() -> None:
        keys = os.read(keyboard, 64).decode(errors="ignore")
        if not keys or QUIT & set(keys):
            quitting.set()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, pressed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
