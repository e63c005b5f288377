"""Things in an image, from the SDK to a worker of its own and back: what transformers finds in the same image."""

import io
from pathlib import Path

import pytest
from PIL import Image

from served_worker import process, write_catalog
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.types import Item
from tiny_owlv2 import in_the_image, owlv2_oracle, write_owlv2
from tiny_vision import picture

MODEL = "org/owl"
LABELS = ["a cat", "red car"]


async def test_both_clients_find_things_in_images_of_every_kind(tmp_path: Path) -> None:
    weights = write_owlv2(tmp_path / "weights")
    own = {
        "adapter": "owlv2",
        "weights_path": str(weights),
        "inputs": {"text": False, "image": True},
        "tasks": {"extract": {}},
    }
    settings = write_catalog(tmp_path / "catalog", {MODEL: own})
    png = picture(80, 60, 1)
    file = tmp_path / "street.png"
    file.write_bytes(png)
    opened = Image.open(io.BytesIO(png))
    with process("--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)) as worker:
        with SIEClient(worker.url) as client:
            one = client.extract(
                MODEL, Item(id="street", images=[file]), labels=LABELS, options={"score_threshold": 0.2}
            )
            items = [Item(images=[opened]), Item(text="a text"), Item(images=[png])]
            drawn, refused, sent = client.extract(MODEL, items, labels=LABELS, options={"score_threshold": 0.2})
        async with SIEAsyncClient(worker.url) as client_async:
            usual = await client_async.extract(MODEL, Item(images=[png]), labels=LABELS)
    wanted = in_the_image(owlv2_oracle(weights)(png, LABELS, 0.2), 80, 60)
    for found in (one["objects"], drawn["objects"], sent["objects"], usual["objects"][: len(wanted)]):
        for each, (label, score, box) in zip(found, wanted, strict=True):
            assert each["label"] == label
            assert each["score"] == pytest.approx(score, abs=1e-5)
            assert each["bbox"] == pytest.approx(box, abs=1e-3)
    assert (one["id"], one["entities"], one["classifications"]) == ("street", [], [])
    assert (refused["objects"], refused["error"]["code"]) == ([], "INVALID_INPUT")
    assert all(each["score"] > 0.1 for each in usual["objects"])
