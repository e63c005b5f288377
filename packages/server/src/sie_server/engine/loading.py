"""Loads one model: its files first, then the adapter that reads them. Blocks, so it runs in a thread."""

import weakref
from collections.abc import Callable
from dataclasses import replace

from sie_server.adapters.base import Adapter, ModelSpec, WeightsSource
from sie_server.adapters.registry import AdapterFactory
from sie_server.weights.store import Hold


def load(build: AdapterFactory, spec: ModelSpec, hold: Callable[[WeightsSource], Hold], device: str) -> Adapter:
    """A loaded adapter. The files it read stay on the disk as long as it lives, because it may have mapped them.

    Raises:
        LoadError: the files cannot be had, or what is wrong with them.
    """
    if not spec.source.is_named:
        return _loaded(build(spec), device)
    held = hold(spec.source)
    try:
        adapter = build(replace(spec, source=replace(spec.source, path=str(held.folder))))
        # Whoever drops the adapter last ends the hold: also the thread of a load that nobody waits for any more.
        weakref.finalize(adapter, held.release)
        return _loaded(adapter, device)
    except BaseException:
        held.release()
        raise


def _loaded(adapter: Adapter, device: str) -> Adapter:
    adapter.load(device)
    return adapter
