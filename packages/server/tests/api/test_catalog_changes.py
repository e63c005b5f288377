"""The files of the catalogue change under a running worker."""

import json
from pathlib import Path
from typing import Any

import pytest

from gated_adapter import until
from served_worker import Served, served, write_catalog

OFTEN_S = 0.01


def write(file: Path, name: str, **fields: Any) -> None:
    """One model of hashes; complete at once, as a reader sees it."""
    profile = {"adapter": "hash", "adapter_options": fields.pop("options", {})}
    config = {"sie_id": name, "tasks": {"encode": {"dense": {"dim": 8}}}, "profiles": {"default": profile}, **fields}
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(config))
    beside.rename(file)


async def names(kit: Served) -> list[str]:
    return [each["name"] for each in (await kit.http.get("/v1/models")).json()["models"]]


async def test_models_come_change_and_go_with_their_files(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path / "c", {"org/a": {}})
    async with served(settings, catalog_interval_s=OFTEN_S) as kit:
        first = kit.worker.feed.frame(0.0).bundle_config_hash
        assert (await kit.encode("org/a", "x")).json()["items"][0]["dense"]["dims"] == 8
        write(settings.models_dir / "b.yaml", "org/b")
        await until(lambda: len(kit.worker.engine.info()) == 2)
        assert await names(kit) == ["org/a", "org/b"]
        assert (await kit.encode("org/b", "x")).status_code == 200
        assert kit.worker.feed.frame(0.0).bundle_config_hash != first  # routers see that it reads what they read
        write(settings.models_dir / "0.yaml", "org/a", tasks={"encode": {"dense": {"dim": 9}}})
        await until(lambda: kit.worker.engine.info_of("org/a")["dims"] == {"dense": 9})
        assert (await kit.encode("org/a", "x")).json()["items"][0]["dense"]["dims"] == 9
        (settings.models_dir / "b.yaml").unlink()
        await until(lambda: len(kit.worker.engine.info()) == 1)
        assert (await kit.encode("org/b", "x")).status_code == 404


async def test_a_broken_file_changes_nothing_is_named_once_and_the_next_right_one_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = write_catalog(tmp_path / "c", {"org/a": {}})
    async with served(settings, catalog_interval_s=OFTEN_S) as kit:
        (settings.models_dir / "b.yaml").write_text("sie_id: org/b\npooling: mean\n")
        await until(lambda: "b.yaml" in caplog.text)
        assert (await kit.encode("org/a", "x")).status_code == 200
        assert await names(kit) == ["org/a"]
        write(settings.models_dir / "b.yaml", "org/b")
        await until(lambda: len(kit.worker.engine.info()) == 2)
        assert caplog.text.count("b.yaml") == 1


async def test_a_model_that_the_worker_was_told_to_serve_cannot_vanish(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = write_catalog(tmp_path / "c", {"org/a": {}, "org/b": {}})
    async with served(settings, catalog_interval_s=OFTEN_S, models=("org/b",)) as kit:
        (settings.models_dir / "1.yaml").unlink()
        await until(lambda: "has no model org/b" in caplog.text)
        assert (await kit.encode("org/b", "x")).status_code == 200


async def test_files_behind_swapped_links_count_as_a_config_map_has_them(tmp_path: Path) -> None:
    settings = write_catalog(tmp_path / "c", {"org/a": {}})
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    write(tmp_path / "one" / "m.yaml", "org/b")
    write(tmp_path / "two" / "m.yaml", "org/c")
    (tmp_path / "data").symlink_to(tmp_path / "one")
    (settings.models_dir / "m.yaml").symlink_to(tmp_path / "data" / "m.yaml")
    async with served(settings, catalog_interval_s=OFTEN_S) as kit:
        assert await names(kit) == ["org/a", "org/b"]
        (tmp_path / "next").symlink_to(tmp_path / "two")
        (tmp_path / "next").replace(tmp_path / "data")
        await until(lambda: [each["name"] for each in kit.worker.engine.info()] == ["org/a", "org/c"])
