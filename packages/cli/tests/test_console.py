import io
from pathlib import Path

import pytest
from rich.console import Console

from sie_cli.console import Reporter
from sie_cli.events import Event, Phase, ProcessEvent, ScaleEvent
from sie_cli.scaler import Cause, Change, Reading, Trigger

AWAKE = Change(Cause.ACTIVATED, 0, 1, reading=Reading(Trigger("demand", 1.0), 1.0))


def printed(event: Event) -> str:
    output = io.StringIO()
    Reporter(Console(file=output, width=20)).event(event)
    return output.getvalue()


def process(phase: Phase, log: Path) -> ProcessEvent:
    return ProcessEvent("l4-0", phase, at=0.0, pid=7, url="http://127.0.0.1:1", log=log, status=3, retry_in_s=0.5)


@pytest.mark.parametrize("phase", Phase)
def test_every_station_of_a_process_has_a_line_with_its_name_and_the_seconds(phase: Phase, tmp_path: Path) -> None:
    line = printed(process(phase, tmp_path / "l4-0.log")).splitlines()[0]
    assert " s  l4-0: " in line


def test_a_crash_shows_its_status_and_the_end_of_the_log_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "l4-0.log"
    path.write_text("first\n[red]not markup[/red]\n")
    text = printed(process(Phase.CRASHED, path))
    assert "ended by itself with status 3; next start in 0.5 s" in text
    assert f"[red]not markup[/red]\nWhole log: {path}\n" in text


def test_a_change_of_size_is_one_line_with_its_reason_however_narrow_the_output() -> None:
    text = printed(ScaleEvent("l4", AWAKE, at=0.0))
    assert text.count("\n") == 1
    assert text.endswith("pool l4: demand 1 > 0: 0 -> 1\n")
