"""What users of a published SDK do, run by that SDK's own environment: `calls.py URL`. Needs no package of ours."""

import asyncio
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.client import PoolError, RequestError, ServerError  # the names of published SDKs
from sie_sdk.types import Item

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
FINDER = "nationaldesignstudio/rampart"
WAIT = {"wait_for_capacity": True, "provision_timeout_s": 120}


def from_zero(client: Any) -> None:
    """The first call of all finds no worker."""
    result = client.encode(MODEL, Item(text="Hello world"), gpu="l4", **WAIT)
    assert result["dense"].shape == (384,), result


def encode(client: Any) -> None:
    """Lists, ids, types of vectors."""
    results = client.encode(MODEL, [Item(id="a", text="one"), Item(text="two")], gpu="l4", output_types=["dense"])
    assert [result["dense"].dtype.name for result in results] == ["float32"] * 2
    assert results[0]["id"] == "a"
    assert client.encode(MODEL, Item(text="x"), gpu="l4", output_dtype="int8")["dense"].dtype.name == "int8"
    assert client.encode(MODEL, Item(text="x"), gpu="l4", is_query=True, options={})["dense"].shape == (384,)


def score(client: Any) -> None:
    """A ranking."""
    ranked = client.score(MODEL, Item(text="tea"), [Item(id="x", text="rocks"), Item(text="green tea")], gpu="l4")
    assert [entry["item_id"] for entry in ranked["scores"]] == ["item-1", "x"], ranked
    assert [entry["rank"] for entry in ranked["scores"]] == [0, 1]


def extract(client: Any) -> None:
    """Entities of a text."""
    found = client.extract(FINDER, Item(text="Write to j.smith@acme.org"), labels=["email"], gpu="l4", **WAIT)
    assert found["entities"][0]["text"] == "j.smith@acme.org", found


def models(client: Any) -> None:
    """The catalogue."""
    assert MODEL in {model["name"] for model in client.list_models()}
    if hasattr(client, "get_model"):
        assert client.get_model(MODEL)["dims"]["dense"] == 384


def capacity(client: Any) -> None:
    """Workers of the cluster."""
    assert client.get_capacity()["worker_count"] >= 1
    assert client.get_capacity(gpu="l4")["worker_count"] >= 1
    assert client.wait_for_capacity("l4", timeout_s=30)["worker_count"] >= 1


def pools(client: Any) -> None:
    """A reservation from its making to its end."""
    client.create_pool("tenant-abc", {"l4": 1})
    assert client.encode(MODEL, Item(text="Hello"), gpu="tenant-abc/l4", **WAIT)["dense"].shape == (384,)
    info = client.get_pool("tenant-abc")
    assert (info["name"], info["status"]["state"]) == ("tenant-abc", "active"), info
    client.create_pool("tenant-abc", {"l4": 1})
    assert client.delete_pool("tenant-abc") is True
    assert client.get_pool("tenant-abc") is None
    assert client.delete_pool("tenant-abc") is False


def own_pool(other: Any) -> None:
    """A pool of the client's own, made with its first call."""
    client: Any = SIEClient(other.base_url, pool={"name": "own", "gpus": {"l4": 1}})
    with client:
        assert client.encode(MODEL, Item(text="Hello"), gpu="own/l4", **WAIT)["dense"].shape == (384,)
        assert client.get_pool("own")["status"]["state"] == "active"
        client.delete_pool("own")


def watch(client: Any) -> None:
    """One frame of the cluster's status."""
    for frame in client.watch():
        assert frame["cluster"]["worker_count"] >= 1
        return


def refusals(client: Any) -> None:
    """Errors of their kinds."""
    cases: list[tuple[Any, Callable[[], Any]]] = [
        (RequestError, lambda: client.encode("nobody/knows", Item(text="a"), gpu="l4")),
        (RequestError, lambda: client.encode(MODEL, [], gpu="l4")),
        # Generations that try any 503 again hear a typo as a 400; it is not waited for.
        ((ServerError, RequestError), lambda: client.encode(MODEL, Item(text="a"), gpu="h9", wait_for_capacity=True)),
        (PoolError, lambda: client.create_pool("Bad Name!", {"l4": 1})),
    ]
    for kind, call in cases:
        try:
            call()
        except kind:
            continue
        raise AssertionError(f"nothing raised {kind}")


def with_asyncio(other: Any) -> None:
    """The same calls of the asyncio client."""

    async def run() -> None:
        async with SIEAsyncClient(other.base_url) as client:
            results = await asyncio.gather(*(client.encode(MODEL, Item(text=t), gpu="l4") for t in ("a", "b")))
            assert [result["dense"].shape for result in results] == [(384,)] * 2
            assert (await client.get_capacity(gpu="l4"))["worker_count"] >= 1

    asyncio.run(run())


STEPS = (from_zero, encode, score, extract, models, capacity, pools, own_pool, watch, refusals, with_asyncio)


def main(url: str) -> int:
    """Run every step; returns the exit status."""
    failed = 0
    with SIEClient(url) as client:
        for step in STEPS:
            began = time.monotonic()
            try:
                step(client)
                outcome = "ok"
            except Exception:  # noqa: BLE001 - whatever a step raises is what this looks for
                outcome, failed = "FAILED\n" + traceback.format_exc(), failed + 1
            print(f"  {step.__name__:14} {time.monotonic() - began:5.1f} s  {outcome}", flush=True)  # noqa: T201 - a report
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
