"""What a worker's process sends is what the SDK's user gets."""

from pathlib import Path

import numpy as np

from served_worker import process, write_catalog
from sie_sdk import SIEClient
from sie_sdk.types import Item

MODEL = "org/three"
DIMS = {"dense": 20, "sparse": 30522, "multivector": 12}


def test_every_output_and_dtype_reaches_the_user_of_the_sdk(tmp_path: Path) -> None:
    tasks = {"encode": {kind: {"dim": dim} for kind, dim in DIMS.items()}}
    settings = write_catalog(tmp_path, {MODEL: {"tasks": tasks}})
    folders = ["--models-dir", str(settings.models_dir), "--bundles-dir", str(settings.bundles_dir)]
    with process(*folders) as worker, SIEClient(worker.url) as client:
        items: list[Item] = [{"text": "b a b"}, {"text": "one"}]
        whole, short = client.encode(MODEL, items, output_types=list(DIMS))
        assert whole["dense"].shape == (20,)
        assert (whole["multivector"].shape, short["multivector"].shape) == ((3, 12), (1, 12))
        assert sorted(whole["sparse"]["values"].tolist()) == [1, 2]
        assert whole["sparse"]["indices"].dtype == np.int32
        assert "quantization" not in whole
        for dtype in ("int8", "uint8"):
            (small, _) = client.encode(MODEL, items, output_types=list(DIMS), output_dtype=dtype)
            for kind, exact in (("dense", whole["dense"]), ("multivector", whole["multivector"])):
                values, way = small[kind], small["quantization"][kind]  # type: ignore[literal-required]
                assert values.dtype == dtype
                back = values * way["scale"] + way.get("offset", 0)
                assert (np.abs(back - exact) <= 0.501 * np.asarray(way["scale"])).all()
            np.testing.assert_array_equal(small["sparse"]["values"], whole["sparse"]["values"])
        (bits, _) = client.encode(MODEL, items, output_types=["dense", "multivector"], output_dtype="binary")
        np.testing.assert_array_equal(np.unpackbits(bits["dense"])[:20], whole["dense"] > 0)
        assert bits["multivector"].shape == (3, 2)
        (half, _) = client.encode(MODEL, items, output_types=["sparse"], output_dtype="float16")
        assert half["sparse"]["values"].dtype == np.float16
        assert worker.stop() == 0
