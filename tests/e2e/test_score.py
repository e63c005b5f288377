"""Scoring from the SDK through the router to a worker with real weights, from a cluster at zero."""

from pathlib import Path

import numpy as np
import pytest

from local_cluster import local_cluster
from sie_sdk import RequestError, SIEAsyncClient, SIEClient
from sie_sdk.types import Item

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CLUSTER = """
router: {retryAfterSeconds: 1}
workers: {pools: {l4: {minReplicas: 0, maxReplicas: 1}}}
autoscaling: {enabled: true, pollingInterval: 1, cooldownPeriod: 600, scaleDownStabilization: 600}
"""
QUERY = Item(id="q", text="How do plants make food?")
ITEMS = [
    Item(id="market", text="The stock market fell sharply on Tuesday."),
    Item(text="Chlorophyll in leaves absorbs sunlight."),
    Item(id="cat", text="My cat sleeps all day."),
]


async def test_a_cluster_at_zero_scores_for_both_clients(tmp_path: Path) -> None:
    with local_cluster(tmp_path, CLUSTER) as cluster:
        async with SIEAsyncClient(cluster.url, gpu="l4") as client:
            result = await client.score(MODEL, QUERY, ITEMS)
            query, *items = [each["dense"] for each in await client.encode(MODEL, [QUERY, *ITEMS])]
        with SIEClient(cluster.url, gpu="l4") as blocking:
            again = blocking.score(MODEL, QUERY, ITEMS)
            with pytest.raises(RequestError, match="items is empty"):
                blocking.score(MODEL, QUERY, [])
    assert result["query_id"] == "q"
    assert result["scores"][0]["item_id"] == "item-1"
    assert [entry["rank"] for entry in result["scores"]] == [0, 1, 2]
    found = {entry["item_id"]: entry["score"] for entry in result["scores"]}
    expected = {"market": items[0] @ query, "item-1": items[1] @ query, "cat": items[2] @ query}
    assert found == pytest.approx(expected, abs=1e-5)
    assert {entry["item_id"]: entry["score"] for entry in again["scores"]} == pytest.approx(found, abs=1e-5)
    assert np.isclose(np.linalg.norm(query), 1, atol=1e-5)  # so that products are cosines
