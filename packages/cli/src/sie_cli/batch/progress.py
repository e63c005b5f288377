"""How far a batch run is, on stderr; silent when that is not a terminal."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import progress as rich_progress
from rich.console import Console

from sie_cli.batch.job import Row, is_error
from sie_cli.failing import unless_nobody_listens
from sie_sdk import WaitEvent


class Progress:
    """Counts rows and shows them. Use as a context manager."""

    def __init__(self, console: Console, total: int | None) -> None:
        self.errors = 0
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rate]}"),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=False,
        )
        self._task = self._bar.add_task("waiting", total=total, rate="")
        self._resumed = 0
        self._has_heard = False

    def start(self, resumed: int) -> None:
        """The first record is about to be sent; `resumed` were settled before."""
        self._resumed = resumed
        self._bar.update(self._task, completed=resumed, description="resumed" if resumed else "started")

    def advance(self, rows: Sequence[Row]) -> None:
        """These rows are settled."""
        self._has_heard = True
        self.errors += sum(is_error(row) for row in rows)
        task = self._bar.tasks[0]
        rate = (task.completed + len(rows) - self._resumed) / (task.elapsed or 1.0)
        refused = f", {self.errors} refused" if self.errors else ""
        self._bar.update(self._task, advance=len(rows), description="running", rate=f"{rate:.0f}/s{refused}")

    def note(self, what: str) -> None:
        """Say what happens now."""
        self._bar.update(self._task, description=what)

    def say(self, what: str) -> None:
        """Print a line, also where there is no bar."""
        self._bar.console.print(what)

    def waiting(self, wait: WaitEvent) -> None:
        """Say what a request waits for.

        Raises:
            RuntimeError: nobody listens, and nobody ever did: a wrong address, not a router that restarts.
        """
        if not self._has_heard:
            unless_nobody_listens(wait)
        self._has_heard = True
        when = f"the router keeps it up to {wait.delay_s:.0f} s" if wait.held else f"again in {wait.delay_s:.0f} s"
        self.note(f"{wait.reason.lower().replace('_', ' ')}: {when}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
