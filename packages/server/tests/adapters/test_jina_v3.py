"""jina-embeddings-v3: the layout of its publisher and that of transformers, and the LoRAs of tasks inside it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sie_protocol.arrays import Array
from sie_server.adapters.base import HasTasks, LoadError, ModelSpec, WeightsSource
from sie_server.adapters.colbert import ColbertAdapter
from sie_server.adapters.dense import DenseAdapter
from sie_server.core.lifecycle import ErrorClass
from tiny_families import WIDTH, write_family
from tiny_jina_v3 import NATIVE, TASKS, oracle, write_native, write_published, write_tasks

TEXTS = ["the cat sat.", "", "two dogs, running far away", "a long document: " * 30]


class Site(NamedTuple):
    """One model in both layouts, and its LoRAs as PEFT keeps them."""

    native: Path
    published: Path
    loras: list[Path]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("jina")
    native = write_native(root / "native")
    loras = write_tasks(native, root / "loras")
    return Site(native, write_published(native, loras, root / "published"), loras)


def adapter(folder: Path, *tasks: str) -> DenseAdapter:
    spec = ModelSpec("org/tiny", WeightsSource(path=str(folder)), {"dense": WIDTH}, {"pooling": "mean"}, tasks=tasks)
    made = DenseAdapter(spec)
    made.load("cpu")
    return made


def run(loaded: DenseAdapter, asked: list[tuple[str, str | None]]) -> Array:
    """Texts, each under a task or none, in one batch."""
    prepared = loaded.prepare([text for text, _ in asked])
    loras = [None if task is None else loaded.lora_of_task(task) for _, task in asked]
    batch = [replace(each, lora=lora) for each, lora in zip(prepared, loras, strict=True)]
    return np.asarray(loaded.run(batch, threads=1)["dense"])


def in_folders(site: Site, folder: Path) -> Path:
    """The model as published for transformers: each LoRA beside it, in a folder with another spelling of its task."""
    shutil.copytree(site.native, folder)
    for task, lora in zip(TASKS, site.loras, strict=True):
        shutil.copytree(lora, folder / task.replace(".", "_").replace("-", "_"))
    return folder


@pytest.mark.parametrize("layout", ["published", "for transformers"])
def test_a_batch_of_all_tasks_and_none_has_each_text_as_peft_alone(site: Site, tmp_path: Path, layout: str) -> None:
    expected = np.stack([oracle(site.native, lora, TEXTS) for lora in (None, *site.loras)])
    apart = np.abs(expected[:, None] - expected[None]).max((2, 3))
    assert (apart[~np.eye(len(apart), dtype=bool)] > 0.05).all(), "every task changes what the model says"
    loaded = adapter(site.published if layout == "published" else in_folders(site, tmp_path / "model"), *TASKS)
    kinds = [None, *TASKS]
    mixed = [(at, kind) for at in range(len(TEXTS)) for kind in range(len(kinds))]
    for order in (mixed, sorted(mixed, key=lambda each: each[1]), mixed[::-1][:9], [(2, 3)]):
        found = run(loaded, [(TEXTS[at], kinds[kind]) for at, kind in order])
        np.testing.assert_allclose(found, [expected[kind, at] for at, kind in order], atol=1e-5)


@pytest.mark.parametrize("own_names", [True, False])
def test_the_layout_of_transformers_and_loras_on_top_of_it_are_read_too(
    site: Site, tmp_path: Path, own_names: bool
) -> None:
    folder = write_family(tmp_path / "model", replace(NATIVE, own_names=own_names))
    assert own_names == any(name.startswith("layers.") for name in load_file(folder / "model.safetensors"))
    loaded = adapter(folder)
    plain = run(loaded, [(each, None) for each in TEXTS])
    np.testing.assert_allclose(plain, oracle(site.native, None, TEXTS), atol=1e-5)
    batch = [replace(each, lora=loaded.read_lora(str(site.loras[0]))) for each in loaded.prepare(TEXTS)]
    found = np.asarray(loaded.run(batch, threads=1)["dense"])
    np.testing.assert_allclose(found, oracle(site.native, site.loras[0], TEXTS), atol=1e-5)


def test_a_model_holds_the_tasks_of_its_catalogue_entry_and_no_others(site: Site) -> None:
    loaded = adapter(site.published, "separation")
    assert isinstance(loaded, HasTasks)
    with pytest.raises(KeyError):
        loaded.lora_of_task("classification")
    assert not isinstance(ColbertAdapter, HasTasks)


def test_tasks_that_are_not_beside_the_weights_are_refused_with_those_that_are(site: Site, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="task 'separation', which the catalogue names; they have none"):
        adapter(site.native, "separation")
    folder = in_folders(site, tmp_path / "model")
    known = ", ".join(sorted(task.replace(".", "_").replace("-", "_") for task in TASKS))
    with pytest.raises(LoadError, match=f"task 'more', which the catalogue names; they have: {known}") as refused:
        adapter(folder, "more", "separation")
    assert refused.value.error_class is ErrorClass.UNKNOWN


def config(**values: Any) -> Any:
    def apply(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return apply


def tensors(change: Any) -> Any:
    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file)

    return apply


def without(all_: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: each for name, each in all_.items() if part not in name}


LORA = "roberta.encoder.layers.0.mlp.fc1.parametrizations.weight.0.lora_"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (config(lora_adaptations=None), "task 'separation', which the catalogue names; they have none"),
        (config(lora_adaptations=["a", "b"]), "they have: a, b"),
        (config(lora_rank="4"), "lora_rank '4'"),
        (config(lora_alpha=None), "lora_alpha None"),
        (config(lora_adaptations=[*TASKS, "more"]), "expected 6 tasks of rank 3"),
        (config(lora_rank=2), "expected 5 tasks of rank 2"),
        (tensors(lambda all_: without(all_, f"{LORA}A")), "fc1' for tasks are"),
        (tensors(lambda all_: without(all_, ".lora_")), "no matrices of any"),
        (tensors(lambda all_: {**all_, f"{LORA}A": torch.ones(5, 3, 31)}), "made for another model"),
        (tensors(lambda all_: {**all_, f"{LORA}A": torch.ones(5, 3)}), "fc1' for tasks are"),
    ],
)
def test_weights_without_the_tasks_of_the_catalogue_are_refused_by_name(
    site: Site, tmp_path: Path, damage: Any, named: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in site.published.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "modules.json").unlink()
    damage(folder)
    with pytest.raises(LoadError, match=named) as refused:
        adapter(folder, "separation")
    assert refused.value.error_class is ErrorClass.UNKNOWN
    if "made for another" not in named:
        adapter(folder)  # which asks for no task
