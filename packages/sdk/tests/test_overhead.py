"""What a call costs beside a bare post of the same bytes, in CPU time of the calling thread."""

import time
import tracemalloc
from collections.abc import Callable

import httpx
import msgspec
import numpy as np

import sdk_answers as published
from sdk_server import Reply, Serve
from sdk_virtual_time import answer
from sie_protocol.items import Item
from sie_sdk import SIEClient, vectors

LIMIT_S = 0.0004  # a machine on which that is less than the bare post itself is slow, or shared
ROUNDS, CALLS = 10, 100


def cost_s(call: Callable[[], object]) -> float:
    began = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - began) / CALLS


def test_encoding_a_short_text_costs_little_more_than_a_bare_post(serve: Serve) -> None:
    vector = np.linspace(0, 1, 384).tolist()
    url = serve(published.encoded([published.dense_item(*vector)])).url
    body = msgspec.msgpack.encode({"items": [{"text": "hello world"}]})
    with httpx.Client(headers=published.MSGPACK) as bare, SIEClient(url) as client:
        rounds = [
            (
                cost_s(lambda: bare.post(f"{url}/v1/encode/org/m", content=body)),
                cost_s(lambda: client.encode("org/m", {"text": "hello world"})),
            )
            for _ in range(ROUNDS)
        ]
    best_bare_s, best_ours_s = (min(costs) for costs in zip(*rounds, strict=True))
    assert best_ours_s - best_bare_s <= max(LIMIT_S, best_bare_s)


def test_decoding_a_large_answer_copies_its_array_at_most_once() -> None:
    array = np.random.default_rng(0).random((1000, 1024), np.float32)
    rows = [{"dense": {"dims": 1024, "dtype": "float32", "values": published.array_map(row)}} for row in array]
    reply = answer(Reply(200, msgspec.msgpack.encode({"model": "m", "items": rows}), published.MSGPACK))
    items: list[Item] = [{"text": "x"}] * len(array)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        results = vectors.results(items, reply)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1.5 * array.nbytes
    assert all(not result["dense"].flags.owndata for result in results)  # views on what the decoder read
    assert np.array_equal(np.stack([result["dense"] for result in results]), array)
