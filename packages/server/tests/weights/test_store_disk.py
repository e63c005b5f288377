"""What the store does to its disk; the models come from a folder that stands for the cluster's cache."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sie_server.core.disk import Disk, DiskLimits
from sie_server.core.lifecycle import ErrorClass
from sie_server.weights.cluster import open_cluster_cache
from sie_server.weights.local_cache import KEEP_PARTIAL_S, size_of
from sie_server.weights.snapshot import MANIFEST, Snapshot
from weights_kit import MIB, Kit, files_of, manifest_of, refused, source, write_model

BOUND_S = 90.0
NAMES = ("org/a", "org/b", "org/c")
HOLD = """
import sys
from pathlib import Path
from weights_kit import Kit, source
pinned = Kit(Path(sys.argv[1]), []).store().pin(source("org/a"))
print("held", flush=True)
sys.stdin.read()
"""


def small_disk(models: float) -> Callable[[Path], Disk]:
    """A disk of which nobody else uses anything, with room for so many models of 3 MiB beside the margin."""
    total = int(models * 3 * MIB) + 64 * MIB

    def read(root: Path) -> Disk:
        return Disk(total, total - size_of(root))

    return read


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """A store beside a cluster cache with three models of 3 MiB."""
    cluster = open_cluster_cache(str(tmp_path / "cluster"), create=True)
    for seed, name in enumerate(NAMES):
        folder = write_model(tmp_path / name, seed=seed)
        assert cluster.publish(Snapshot(name), manifest_of(folder, Snapshot(name)), folder)
    return Kit(tmp_path / "cache", [cluster], disk=small_disk(2.5), limits=DiskLimits(100))


def use(kit: Kit, name: str) -> None:
    kit.store().pin(source(name)).release()


def test_the_model_not_used_for_longest_makes_room(kit: Kit) -> None:
    for name in ("org/a", "org/b", "org/a", "org/c"):
        use(kit, name)
    assert kit.names() == {"org--a@main", "org--c@main"}
    assert kit.evicted == [pytest.approx(3 * MIB, rel=0.01)]


def test_a_model_in_use_stays_however_long_ago_it_was_asked_for(kit: Kit) -> None:
    pinned = kit.store().pin(source("org/a"))
    use(kit, "org/b")
    use(kit, "org/c")
    assert kit.names() == {"org--a@main", "org--c@main"}
    assert files_of(pinned.folder)
    pinned.release()
    pinned.release()
    use(kit, "org/b")
    assert kit.names() == {"org--b@main", "org--c@main"}


def test_a_model_that_another_process_uses_stays(kit: Kit) -> None:
    use(kit, "org/a")
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # noqa: TID251 - for a child
    command = [sys.executable, "-c", HOLD, str(kit.root)]
    with subprocess.Popen(command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        use(kit, "org/b")
        use(kit, "org/c")
        assert kit.names() == {"org--a@main", "org--c@main"}


def test_a_model_that_cannot_fit_is_refused_with_sizes_and_deletes_nothing(kit: Kit) -> None:
    pinned_models = [kit.store().pin(source(name)) for name in ("org/a", "org/b")]
    found, message = refused(kit.store(), source("org/c"))
    assert found is ErrorClass.OOM
    assert "no room for 'org/c': it needs 0.00 GiB, 0.06 GiB are free" in message
    assert kit.names() == {"org--a@main", "org--b@main"}
    for pinned in pinned_models:
        pinned.release()
    use(kit, "org/c")  # once something is free it fits


def test_the_bound_of_the_cache_holds_on_a_large_disk(kit: Kit) -> None:
    kit.disk, kit.limits = small_disk(1000), DiskLimits(100, cache_bytes=7 * MIB)
    for name in NAMES:
        use(kit, name)
    assert kit.names() == {"org--b@main", "org--c@main"}


def test_eviction_can_be_switched_off(kit: Kit) -> None:
    kit.limits = None
    use(kit, "org/a")
    use(kit, "org/b")
    found, _ = refused(kit.store(), source("org/c"))
    assert found is ErrorClass.OOM
    assert kit.names() == {"org--a@main", "org--b@main"}


def test_a_model_that_cannot_be_deleted_is_passed_over_once(kit: Kit) -> None:
    kit.disk, kit.limits = small_disk(1000), DiskLimits(0.001)
    use(kit, "org/a")
    (kit.root / ".trash").touch()  # not a folder
    use(kit, "org/b")
    assert kit.names() == {"org--a@main", "org--b@main"}
    assert not kit.evicted


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: os.truncate(file, 5)])
def test_an_entry_that_lost_something_is_fetched_again(kit: Kit, damage: Callable[[Path], None]) -> None:
    use(kit, "org/a")
    whole = files_of(kit.root / "org--a@main")
    damage(kit.root / "org--a@main" / "model.safetensors")
    use(kit, "org/a")
    assert files_of(kit.root / "org--a@main") == whole
    assert len(kit.fetched) == 2


def test_what_dead_workers_left_is_cleaned_up_and_what_lives_is_not(kit: Kit) -> None:
    use(kit, "org/a")
    partials = kit.root / ".partial"
    for at, name in enumerate(("old", "busy", "fresh")):
        shutil.copytree(kit.root / "org--a@main", partials / name)
        age = 10.0 if name == "fresh" else KEEP_PARTIAL_S + 10
        os.utime(partials / name / ".sie-last-use", (kit.now - age, kit.now - age + at))
    (kit.root / ".trash" / "half").mkdir(parents=True)
    busy = kit.cache.lock("busy")
    assert busy.try_exclude()
    kit.store().clean()
    busy.release()
    assert {path.name for path in partials.iterdir()} == {"busy", "fresh"}
    assert list((kit.root / ".trash").iterdir()) == []  # still there: another worker may be moving something into it
    assert kit.names() == {"org--a@main"}


def test_a_cache_that_cannot_be_written_says_what_to_set(kit: Kit) -> None:
    kit.root.parent.mkdir(exist_ok=True)
    kit.root.write_text("not a folder")
    found, message = refused(kit.store(), source("org/a"))
    assert found is ErrorClass.OOM
    assert "SIE_LOCAL_CACHE" in message


def test_who_waits_to_fetch_a_model_takes_it_from_who_has_it_in_use(kit: Kit) -> None:
    other = Kit(kit.root.parent / "other", kit.sources)
    use(other, "org/a")
    reader, stop = kit.cache.lock("org--a@main"), threading.Event()
    reader.share(stop)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kit.store().pin, source("org/a"))
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        (other.root / "org--a@main").rename(kit.root / "org--a@main")  # as if it had been fetched by the reader
        waiting.result(BOUND_S).release()
    reader.release()
    assert not kit.fetched


def test_a_complete_model_in_a_cache_without_locks_is_served(kit: Kit) -> None:
    use(kit, "org/a")
    shutil.rmtree(kit.root / ".locks")
    (kit.root / ".locks").touch()  # as on a read-only disk, no lock can be made
    pinned = kit.store().pin(source("org/a"))
    assert pinned.folder == kit.root / "org--a@main"
    pinned.release()
    assert refused(kit.store(), source("org/b"))[0] is ErrorClass.OOM


def test_an_entry_s_manifest_is_that_of_what_was_asked_for(kit: Kit) -> None:
    use(kit, "org/a")
    (kit.root / "org--a@main").rename(kit.root / "org--b@main")
    use(kit, "org/b")
    assert len(kit.fetched) == 2
    assert b'"org/b"' in (kit.root / "org--b@main" / MANIFEST).read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"], ids=["when written", "only when closed"])
def test_a_disk_that_is_full_is_told_as_that(kit: Kit, file: str) -> None:
    folder = kit.cache.begin(Snapshot("org/a"), manifest_of(kit.root.parent / "org/a", Snapshot("org/a")))
    (folder / f"{file}.part").symlink_to("/dev/full")  # small files stay in a buffer until they are closed
    kind, message = refused(kit.store(), source("org/a"))
    assert (kind, "No space left" in message) == (ErrorClass.OOM, True)
