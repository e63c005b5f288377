from pathlib import Path

import pytest

from sie_router.control.catalog_files import read_catalog

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
