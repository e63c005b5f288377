import pytest

from router_builders import L4, fleet, seen, url
from sie_router.control.unconfigured import UnconfiguredWorkers
from sie_router.core.events import Event, WorkerGone, apply
from sie_router.core.fleet import Fleet


class Watched:
    """A fleet that is looked at after each event."""

    def __init__(self, state: Fleet) -> None:
        self.fleet = state
        self.unconfigured = UnconfiguredWorkers(lambda: self.fleet)

    def after(self, *events: Event) -> None:
        for event in events:
            self.fleet = apply(self.fleet, event, 0.0)
            self.unconfigured.look()
            self.unconfigured.look()


def test_a_worker_of_no_configured_group_is_named_once_with_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(fleet(groups=[L4]))
    watched.after(seen("mute", profile="", ready=False), seen("l4-0"))
    assert not caplog.messages
    watched.after(seen("mute", profile=""), seen("mute", profile="", depth=3))
    (said,) = caplog.messages
    assert "'mute'" in said
    assert "no configured group (l4:default)" in said
    assert "SIE_MACHINE_PROFILE" in said
    watched.after(seen("mute", bundle="vision"))
    assert len(caplog.messages) == 2, "it says something else"
    watched.after(seen("mute", ready=False), seen("mute", bundle="vision"))
    assert len(caplog.messages) == 2, "it said that before"
    watched.after(WorkerGone(url("mute")), seen("mute", profile=""))
    assert len(caplog.messages) == 3, "another one"


def test_without_configured_groups_nobody_is_named(caplog: pytest.LogCaptureFixture) -> None:
    Watched(fleet(groups=[])).after(seen("w", profile=""))
    assert not caplog.messages
