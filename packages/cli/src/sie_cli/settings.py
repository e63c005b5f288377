"""The environment of the command line: the only place that reads it, and what is handed on to child processes."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOKENS: Final = ("SIE_ADMIN_TOKEN", "SIE_AUTH_TOKENS", "SIE_AUTH_TOKEN")  # of routers, between commas


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller's environment holds. Child processes inherit `inherited`; nothing is ever written back.

    `runs`: where each cluster makes its own folder for logs. `state`: where the cluster in the background is noted.
    """

    inherited: Mapping[str, str]
    cores: int
    runs: Path
    state: Path

    @property
    def has_models_dir(self) -> bool:
        """True when the user points routers and workers at a catalogue of their own."""
        return bool(self.inherited.get("SIE_MODELS_DIR"))

    @property
    def bundles_dir(self) -> Path | None:
        """The user's own folder of bundle files; None: the packaged ones."""
        folder = self.inherited.get("SIE_BUNDLES_DIR")
        return Path(folder) if folder else None

    @property
    def token(self) -> str | None:
        """A token that routers of this environment admit; None where they know none."""
        told = ",".join(self.inherited.get(name, "") for name in TOKENS)
        return next((token.strip() for token in told.split(",") if token.strip()), None)


def load() -> Settings:
    """Read the environment once."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    runs = Path(tempfile.gettempdir())
    return Settings(inherited=dict(os.environ), cores=_cores(), runs=runs, state=Path(home) / "sie")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
