"""Models from a bucket on loopback, and from a folder that stands for a shared disk."""

from pathlib import Path

import msgspec
import pytest

from fake_bucket import FakeBucket, fake_bucket
from fake_hub import fake_hub
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.cluster import open_cluster_cache
from sie_server.weights.hub import Hub
from sie_server.weights.snapshot import MANIFEST, File, Manifest, Snapshot
from weights_kit import MIB, Kit, files_of, manifest_of, refused, source, write_model

SNAPSHOT = Snapshot("org/m", "v1")
WANTED = source(revision="v1")


def filled(bucket: FakeBucket, folder: Path) -> None:
    assert bucket.cache().publish(SNAPSHOT, manifest_of(folder, SNAPSHOT), folder)


def test_what_one_worker_publishes_another_one_fetches_without_the_hub(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", 20 * MIB)
    with fake_bucket() as bucket:
        with fake_hub({"org/m": model}) as hub:
            first = Kit(tmp_path / "one", [bucket.cache(), Hub(endpoint=hub.url)], publisher=bucket.cache())
            first.store().pin(WANTED).release()
        second = Kit(tmp_path / "two", [bucket.cache()])
        pinned = second.store().pin(WANTED)
        assert [each.kind for each in (*first.fetched, *second.fetched)] == ["hub", "cluster"]
        written = [key for method, key in bucket.asked if method == "PUT"]
        assert written[-1] == f"org--m@v1/{MANIFEST}"
        assert not any("list-type" in key for _, key in bucket.asked)
    assert files_of(pinned.folder) == files_of(model)
    pinned.release()


def test_nothing_is_published_unless_asked_for(tmp_path: Path) -> None:
    with fake_bucket() as bucket, fake_hub({"org/m": write_model(tmp_path / "repo")}) as hub:
        Kit(tmp_path / "one", [bucket.cache(), Hub(endpoint=hub.url)]).store().pin(WANTED).release()
        assert not bucket.objects


def test_an_entry_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    with fake_bucket() as bucket:
        filled(bucket, write_model(tmp_path / "repo"))
        del bucket.objects[f"org--m@v1/{MANIFEST}"]
        found, message = refused(Kit(tmp_path / "cache", [bucket.cache()]).store(), WANTED)
    assert found is ErrorClass.NOT_FOUND
    assert "in none of: local cache, cluster" in message


def test_responses_that_break_are_asked_for_again(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", 20 * MIB)
    with fake_bucket() as bucket:
        filled(bucket, model)
        bucket.cuts = 2
        pinned = Kit(tmp_path / "cache", [bucket.cache()]).store().pin(WANTED)
        assert bucket.cuts == 0
    assert files_of(pinned.folder) == files_of(model)
    pinned.release()


def test_a_fetch_that_failed_goes_on_where_it_was(tmp_path: Path) -> None:
    model = write_model(tmp_path / "repo", 40 * MIB)
    with fake_bucket() as bucket:
        filled(bucket, model)
        kit = Kit(tmp_path / "cache", [bucket.cache()])
        part = kit.root / ".partial" / "org--m@v1" / "model.safetensors.part"
        bucket.broken_from = 20 * MIB
        assert refused(kit.store(), WANTED)[0] is ErrorClass.NETWORK
        kept = part.stat().st_size
        assert 0 < kept < 40 * MIB
        bucket.broken_from = None
        bucket.starts.clear()
        pinned = kit.store().pin(WANTED)
        assert min(bucket.starts) == kept
    assert files_of(pinned.folder) == files_of(model)
    first, second = kit.fetched
    assert (first.is_complete, second.is_complete) == (False, True)
    assert kept <= first.size < kept + 4096
    assert first.size + second.size == sum(map(len, files_of(model).values()))
    pinned.release()


@pytest.mark.parametrize("damage", [b"x", b""])
def test_an_object_that_is_not_as_listed_never_counts_and_the_hub_helps(tmp_path: Path, damage: bytes) -> None:
    model = write_model(tmp_path / "repo")
    with fake_bucket() as bucket, fake_hub({"org/m": model}) as hub:
        filled(bucket, model)
        key = "org--m@v1/model.safetensors"
        bucket.objects[key] = bucket.objects[key][:-1] + damage
        kit = Kit(tmp_path / "cache", [bucket.cache()])
        found, _ = refused(kit.store(), WANTED)
        assert found is ErrorClass.NETWORK
        assert not kit.names()
        both = Kit(tmp_path / "cache", [bucket.cache(), Hub(endpoint=hub.url)])
        pinned = both.store().pin(WANTED)
        assert [(each.kind, each.is_complete) for each in both.fetched] == [("cluster", False), ("hub", True)]
    assert files_of(pinned.folder) == files_of(model)
    pinned.release()


@pytest.mark.parametrize(("status", "expected"), [(403, ErrorClass.GATED), (500, ErrorClass.NETWORK)])
def test_a_bucket_that_refuses_says_so(tmp_path: Path, status: int, expected: ErrorClass) -> None:
    with fake_bucket() as bucket:
        bucket.status = status
        found, message = refused(Kit(tmp_path / "cache", [bucket.cache()]).store(), WANTED)
    assert found is expected
    assert "s3://models" in message


@pytest.mark.parametrize("path", ["../../outside.json", "/etc/x.json", "modeling.py", "pytorch_model.bin"])
def test_a_manifest_that_lists_what_is_not_needed_is_refused(tmp_path: Path, path: str) -> None:
    evil = Manifest("org/m", "v1", None, (File(path, 1, f"sha256:{'0' * 64}"),))
    with fake_bucket() as bucket:
        bucket.objects[f"org--m@v1/{MANIFEST}"] = msgspec.json.encode(evil)
        found, message = refused(Kit(tmp_path / "cache", [bucket.cache()]).store(), WANTED)
    assert found is ErrorClass.UNKNOWN
    assert path in message


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_shared_disk_is_a_cluster_cache_too(tmp_path: Path, scheme: str) -> None:
    model, url = write_model(tmp_path / "repo"), f"{scheme}{tmp_path / 'shared'}"
    with pytest.raises(ValueError, match="shared' cannot be used"):
        open_cluster_cache(url)
    assert open_cluster_cache(url, create=True).publish(SNAPSHOT, manifest_of(model, SNAPSHOT), model)
    assert not open_cluster_cache(url).publish(SNAPSHOT, manifest_of(model, SNAPSHOT), model)
    pinned = Kit(tmp_path / "cache", [open_cluster_cache(url)]).store().pin(WANTED)
    assert files_of(pinned.folder) == files_of(model)
    pinned.release()


def test_while_the_bucket_cannot_be_asked_no_refusal_of_the_hub_is_final(tmp_path: Path) -> None:
    with fake_bucket() as bucket, fake_hub({"org/m": (403, "GatedRepo")}) as hub:
        kit = Kit(tmp_path / "cache", [bucket.cache(), Hub(endpoint=hub.url)])
        assert refused(kit.store(), WANTED)[0] is ErrorClass.GATED
        bucket.status = 500
        found, message = refused(kit.store(), WANTED)
    assert found is ErrorClass.NETWORK
    assert "s3://models" in message
    assert "accept its licence" in message


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="cluster cache 'ftp://host/models'"):
        open_cluster_cache("ftp://host/models")


AZURE = "abfss://container@account.dfs.core.windows.net/models"


@pytest.mark.parametrize("url", ["gs://bucket/models", "s3://bucket/models", AZURE])
def test_buckets_of_every_cloud_are_opened_without_asking_them(url: str) -> None:
    assert open_cluster_cache(url).kind == "cluster"
