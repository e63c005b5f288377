"""Extraction from the SDK through the router to a worker with real weights, from a cluster at zero."""

from pathlib import Path

import pytest

from local_cluster import local_cluster
from sie_sdk import RequestError, SIEAsyncClient, SIEClient
from sie_sdk.types import Item

MODEL = "nationaldesignstudio/rampart"
CLUSTER = """
router: {retryAfterSeconds: 1}
workers: {pools: {l4: {minReplicas: 0, maxReplicas: 1}}}
autoscaling: {enabled: true, pollingInterval: 1, cooldownPeriod: 600, scaleDownStabilization: 600}
"""
TEXT = "Hi 😀, this is John Smith. Call me at (212) 555-0187 or write to j.smith@acme.org."
FOUND = {"John": "GIVEN_NAME", "Smith": "SURNAME", "(212) 555-0187": "PHONE", "j.smith@acme.org": "EMAIL"}


async def test_a_cluster_at_zero_finds_personal_data_for_both_clients(tmp_path: Path) -> None:
    with local_cluster(tmp_path, CLUSTER) as cluster:
        async with SIEAsyncClient(cluster.url, gpu="l4") as client:
            result = await client.extract(MODEL, Item(id="mail", text=TEXT))
        with SIEClient(cluster.url, gpu="l4") as blocking:
            bad, good = blocking.extract(MODEL, [Item(id="empty"), Item(text=TEXT)], labels=["phone"])
            with pytest.raises(RequestError, match="its labels: BANK_ACCOUNT"):
                blocking.extract(MODEL, Item(text=TEXT), labels=["planet"])
    assert result["id"] == "mail"
    assert {each["text"]: each["label"] for each in result["entities"]} == FOUND
    assert all(TEXT[each["start"] : each["end"]] == each["text"] for each in result["entities"])
    assert (bad["id"], bad["error"]["code"], bad["entities"]) == ("empty", "INVALID_INPUT", [])
    assert [(each["text"], each["label"]) for each in good["entities"]] == [("(212) 555-0187", "phone")]
