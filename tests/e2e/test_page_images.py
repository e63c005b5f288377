"""Page images from the SDK to a worker: files as items, a text as the query."""

from pathlib import Path

import numpy as np

from served_worker import process, write_catalog
from sie_sdk import SIEClient
from sie_sdk.types import Item
from tiny_colvision import DIMS, Oracle, write_colpali
from tiny_vision import picture

MODEL, QUERY = "org/pages", "what is the revenue?"
IMAGES = [picture(40, 40, 1), picture(60, 35, 2, "JPEG"), picture(30, 90, 3)]


def test_pages_go_as_images_and_come_back_as_vectors_and_ranks(tmp_path: Path) -> None:
    folder = write_colpali(tmp_path / "model")
    own = {
        "adapter": "colvision",
        "weights_path": str(folder),
        "inputs": {"text": True, "image": True},
        "tasks": {"encode": {"multivector": {"dim": DIMS}}},
    }
    settings = write_catalog(tmp_path / "catalog", {MODEL: own})
    files = [tmp_path / f"page-{at}" for at in range(len(IMAGES))]
    for file, image in zip(files, IMAGES, strict=True):
        file.write_bytes(image)
    oracle = Oracle(folder)
    pages, (query,) = oracle.images(IMAGES), oracle.texts([QUERY])
    items = [Item(id=each.name, images=[each]) for each in files]
    with (
        process("--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)) as worker,
        SIEClient(worker.url) as client,
    ):
        encoded = client.encode(MODEL, [*items, Item(text=QUERY)], output_types=["multivector"])
        for found, expected in zip(encoded, [*pages, query], strict=True):
            np.testing.assert_allclose(found["multivector"], expected, atol=1e-5)
        scores = {each["item_id"]: each["score"] for each in client.score(MODEL, Item(text=QUERY), items)["scores"]}
        expected_scores = oracle.score([query], pages)[0]
        np.testing.assert_allclose([scores[each.name] for each in files], expected_scores, atol=1e-4)
        assert worker.stop() == 0
