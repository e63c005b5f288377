"""Lines for people: one for each event, with the seconds since the command started."""

import time
from typing import assert_never

from rich.console import Console
from rich.text import Text

from sie_cli.events import Event, Phase, ProcessEvent, ScaleEvent
from sie_cli.logs import log_tail
from sie_cli.scaler import explain

STYLES = {
    Phase.STARTED: "cyan",
    Phase.LISTENING: "cyan",
    Phase.SLOW: "yellow",
    Phase.READY: "green",
    Phase.CRASHED: "bold red",
    Phase.STOPPING: "yellow",
    Phase.STOPPED: "yellow",
}


class Reporter:
    """Prints events as they come; works the same when the output is a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started_at = time.monotonic()

    def event(self, event: Event) -> None:
        """Print one line."""
        match event:
            case ScaleEvent():
                self.line(f"pool {event.pool}: {explain(event.change)}", "bold magenta", at=event.at)
            case ProcessEvent():
                self.line(describe(event), STYLES[event.phase], at=event.at)
                if event.phase in {Phase.CRASHED, Phase.SLOW}:
                    self.console.print(Text(log_tail(event.log), "dim"), soft_wrap=True)
            case _:
                assert_never(event)

    def line(self, message: str, style: str = "", *, at: float | None = None) -> None:
        """Print a message behind the time it belongs to, now by default."""
        elapsed_s = (time.monotonic() if at is None else at) - self._started_at
        text = Text.assemble((f"{elapsed_s:8.2f} s  ", "dim"), (message, style))
        self.console.print(text, soft_wrap=True)


def describe(event: ProcessEvent) -> str:  # noqa: PLR0911 - one for each station
    """What a process did, in words."""
    match event.phase:
        case Phase.STARTED:
            return f"{event.name}: process {event.pid} started"
        case Phase.LISTENING:
            return f"{event.name}: listening on {event.url}"
        case Phase.SLOW:
            return f"{event.name}: still not ready; what it wrote:"
        case Phase.READY:
            return f"{event.name}: ready"
        case Phase.CRASHED:
            return f"{event.name}: ended by itself with status {event.status}; next start in {event.retry_in_s:g} s"
        case Phase.STOPPING:
            return f"{event.name}: stopping"
        case Phase.STOPPED:
            return f"{event.name}: stopped"
        case _:
            assert_never(event.phase)
