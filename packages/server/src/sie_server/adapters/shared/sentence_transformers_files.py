"""Reads what a sentence-transformers folder says about pooling, normalisation and length. Knows nothing of tensors."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.weights import read_json
from sie_server.core.lifecycle import ErrorClass

# How pooling modules up to sentence-transformers 5 spell their mode.
_FLAGS: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_NAMES: Final = {"mean": "mean", "cls": "cls", "lasttoken": "last", "last": "last"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How token vectors become one vector, and how texts are cut. `max_length` counts special tokens too.

    `end_token` ends every text, whether or not the model's own tokenizer says so. `dense` are the folders of the layers
    behind the pooling, in their order.
    """

    pooling: str
    normalize: bool
    max_length: int | None
    lower_case: bool
    end_token: str | None = None
    dense: tuple[Path, ...] = ()


def read_layout(folder: Path, options: Mapping[str, Any]) -> Layout:
    """The folder's own layout, where the catalogue's options do not say otherwise.

    Raises:
        LoadError: the folder or an option asks for something this worker cannot do.
    """
    modules = read_modules(folder, {"Transformer", "Pooling", "Dense", "Normalize"})
    text = read_text_settings(folder)
    own_pooling = next((_pooling(folder / path) for kind, path in modules if kind == "Pooling"), "mean")
    pooling = options.get("pooling", own_pooling)
    own_normalize = not modules or any(kind == "Normalize" for kind, _ in modules)
    normalize = options.get("normalize", own_normalize)
    return Layout(
        pooling,
        bool(normalize),
        text.get("max_seq_length"),
        bool(text.get("do_lower_case", False)),
        options.get("end_token"),
        tuple(folder / path for kind, path in modules if kind == "Dense"),
    )


def read_text_settings(folder: Path) -> dict[str, Any]:
    """What the folder says about its texts: `max_seq_length` and `do_lower_case`, if anything.

    Raises:
        LoadError: UNKNOWN when the file is no JSON object.
    """
    path = folder / "sentence_bert_config.json"
    return read_json(path) if path.is_file() else {}


def read_modules(folder: Path, known: Collection[str]) -> list[tuple[str, str]]:
    """Kind and sub-folder of each module of a model; empty for a plain transformers folder.

    Raises:
        LoadError: UNKNOWN when modules.json is none, DEPENDENCY for a kind that is not among the known ones.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = [(str(each["type"]).rsplit(".", 1)[-1], str(each["path"])) for each in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(ErrorClass.UNKNOWN, f"modules.json is not a list of modules: {error}") from error
    unknown = [kind for kind, _ in modules if kind not in known]
    if unknown:
        raise LoadError(ErrorClass.DEPENDENCY, f"modules {', '.join(unknown)} of the model are not supported")
    return modules


def _pooling(folder: Path) -> str:
    config = read_json(folder / "config.json")
    if "pooling_mode" in config:
        modes = [str(config["pooling_mode"])]
    else:
        modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    names = [_FLAGS.get(mode) or _NAMES.get(mode) for mode in modes]
    if len(names) != 1 or names[0] is None:
        raise LoadError(ErrorClass.DEPENDENCY, f"pooling {', '.join(modes)} of the model is not supported")
    return names[0]
