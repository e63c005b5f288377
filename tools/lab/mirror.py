"""A copy of some objects of the API, kept by a thread that lists and watches: for what stands in for a controller."""

import threading
from collections.abc import Iterable
from typing import Final

import httpx
import msgspec

from lab.api import Api, Object, Refused

WATCH_S: Final = 20  # below the client's patience
RETRY_S: Final = 0.5  # while the API is away, or a kind is not there yet


class Mirror:
    """The objects of one collection, for example `/api/v1/services`. `changed` is set at every change."""

    def __init__(self, api: Api, path: str, changed: threading.Event | None = None) -> None:
        self._api = api
        self._path = path
        self._changed = changed or threading.Event()
        self._objects: dict[str, Object] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"mirror of {path}", daemon=True)
        self._thread.start()

    def objects(self) -> Iterable[Object]:
        """All of them, as last heard; while the API is away, as it was before."""
        return tuple(self._objects.values())

    def close(self) -> None:
        """Stop following; an open watch ends by itself within seconds, and nobody waits for it."""
        self._stop.set()

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (Refused, httpx.HTTPError, msgspec.DecodeError, RuntimeError):  # the client may be closed already
                self._stop.wait(RETRY_S)

    def _follow(self) -> None:
        """List, then watch until something ends it."""
        listed = self._api.get(self._path)
        self._objects = {each["metadata"]["uid"]: each for each in listed["items"]}
        self._changed.set()
        version = listed["metadata"]["resourceVersion"]
        while not self._stop.is_set():
            with self._api.watch(self._path, version, timeoutSeconds=str(WATCH_S)) as events:
                for event in events:
                    item = event["object"]
                    version = item["metadata"]["resourceVersion"]
                    self._take(event["type"], item)

    def _take(self, kind: str, item: Object) -> None:
        changed = dict(self._objects)
        if kind == "DELETED":
            changed.pop(item["metadata"]["uid"], None)
        else:
            changed[item["metadata"]["uid"]] = item
        self._objects = changed
        self._changed.set()


def endpoints_of(slices: Iterable[Object], namespace: str, service: str) -> list[tuple[Object, Object]]:
    """Each (slice, endpoint) behind a Service."""
    return [
        (item, endpoint)
        for item in slices
        if item["metadata"]["namespace"] == namespace
        and item["metadata"].get("labels", {}).get("kubernetes.io/service-name") == service
        for endpoint in item["endpoints"] or ()
    ]
