"""`sie version`: what is installed here."""

import platform
from importlib import metadata

DISTRIBUTIONS = ("sie", "sie-sdk", "sie-router", "sie-server", "sie-protocol")


def versions() -> dict[str, str]:
    """Version of each of our distributions, then of Python."""
    found = {name: _version(name) for name in DISTRIBUTIONS}
    return {**found, "python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
