import asyncio
from pathlib import Path

import httpx
import pytest

from router_fakes import Served, eventually, served, settings
from sie_router.control.catalog_files import read_catalog
from sie_router.core.demand import wanted

MODEL = "sie_id: {id}\ntasks:\n  encode:\n    dense: {{dim: 8}}\nprofiles:\n  default: {{adapter: {adapter}}}\n"


def folders(root: Path) -> tuple[Path, Path]:
    models, bundles = root / "models", root / "bundles"
    models.mkdir()
    bundles.mkdir()
    (models / "one.yaml").write_text(MODEL.format(id="org/one", adapter="dense"))
    (bundles / "default.yaml").write_text("name: default\nadapters: [dense]\n")
    return models, bundles


def test_both_folders_make_one_catalogue(tmp_path: Path) -> None:
    catalog = read_catalog(*folders(tmp_path))
    model = catalog.find("ORG/one")
    assert model is not None
    assert catalog.bundles_of(model) == ("default",)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    models, bundles = folders(tmp_path)
    (models / "two.yaml").write_text("sie_id: x\nunknown: 1\n")
    with pytest.raises(ValueError, match=r"two\.yaml"):
        read_catalog(models, bundles)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        read_catalog(tmp_path / "nowhere", tmp_path)


def test_an_empty_folder_is_no_catalogue(tmp_path: Path) -> None:
    models, bundles = folders(tmp_path)
    (tmp_path / "none").mkdir()
    for pair in ((tmp_path / "none", bundles), (models, tmp_path / "none")):
        with pytest.raises(ValueError, match="none' holds no"):
            read_catalog(*pair)


def swap(mount: Path, version: str, files: dict[str, str]) -> None:
    """Change a folder the way a ConfigMap's mount changes: new files aside, then one link is swapped."""
    (mount / version).mkdir(parents=True)
    for name, text in files.items():
        (mount / version / name).write_text(text)
    (mount / "..new").symlink_to(version)
    (mount / "..new").rename(mount / "..data")
    for name in files:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


def empty(mount: Path) -> None:
    """Take every file away, as a ConfigMap without keys does."""
    for path in mount.glob("*.yaml"):
        path.unlink()


def model(name: str) -> str:
    return f"sie_id: {name}\ntasks: {{encode: {{dense: {{dim: 8}}}}}}\nprofiles: {{default: {{adapter: hash}}}}\n"


BUNDLE = "name: default\nadapters: [hash]\n"


async def test_a_swapped_config_map_is_read_and_a_wrong_one_keeps_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models, bundles = tmp_path / "models", tmp_path / "bundles"
    swap(models, "..1", {"a.yaml": model("org/a")})
    swap(bundles, "..1", {"default.yaml": BUNDLE})
    async with served(settings(models_dir=models, bundles_dir=bundles)) as router:
        assert router.app.catalog is not None
        following = asyncio.create_task(router.app.catalog.follow(every_s=0.01))
        assert await names(router) == ["org/a"]
        swap(models, "..2", {"a.yaml": model("org/b")})
        await eventually(lambda: listed(router) == ["org/b"])
        swap(models, "..3", {"a.yaml": "sie_id: ["})
        await eventually(lambda: "keeps the one it has" in caplog.text)
        before = len(caplog.records)
        await asyncio.to_thread(router.app.catalog.look)
        assert len(caplog.records) == before
        assert await names(router) == ["org/b"]
        empty(models)
        await eventually(lambda: "holds no *.yaml" in caplog.text)
        assert await names(router) == ["org/b"]
        swap(models, "..4", {"a.yaml": model("org/c")})
        await eventually(lambda: listed(router) == ["org/c"])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_router_without_its_catalogue_is_unready_and_asks_for_no_worker(tmp_path: Path) -> None:
    models, bundles = tmp_path / "models", tmp_path / "bundles"
    wanting = settings(models_dir=models, bundles_dir=bundles)
    async with served(wanting) as router, httpx.AsyncClient(base_url=router.url) as client:
        unready = await client.get("/readyz")
        early = await client.post("/v1/encode/org/a")
        assert (unready.status_code, early.headers["x-sie-error-code"]) == (503, "STORE_UNAVAILABLE")
        published = await client.post("/v1/encode/org/a", headers={"x-sie-sdk-version": "0.10.1"})
        assert published.headers["x-sie-error-code"] == "QUEUE_UNAVAILABLE"
        assert not any(wanted(router.app.store.snapshot(), 0).values())
        swap(models, "..1", {"a.yaml": model("org/a")})
        swap(bundles, "..1", {"default.yaml": BUNDLE})
        assert router.app.catalog is not None
        router.app.catalog.look()
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/v1/encode/org/a")).status_code == 202


def listed(router: Served) -> list[str]:
    return [model.sie_id for model, _ in router.app.store.snapshot().models.listed()]


async def names(router: Served) -> list[str]:
    async with httpx.AsyncClient(base_url=router.url) as client:
        return [each["name"] for each in (await client.get("/v1/models")).json()["models"]]
