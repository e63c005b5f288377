"""Which files of a published model are needed: configuration, tokenizer, safetensors. Never code, rarely a pickle."""

import re
from collections.abc import Collection
from typing import Final

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.weight_files import LORA_CONFIG, LORA_WEIGHTS
from sie_server.core.lifecycle import ErrorClass

# A module of a sentence-transformers model: `1_Pooling`, `2_Dense`, `query_0_StaticEmbedding`.
_MODULE: Final = r"(?P<folder>(\w+_)?\d+_[A-Z]\w*/)?"
# LoRAs that come with a model, one for each of its tasks: those of jina-embeddings-v3 as published for transformers.
_TASK: Final = re.compile(
    r"(retrieval_query|retrieval_passage|separation|classification|text_matching)/"
    rf"({re.escape(LORA_CONFIG)}|{re.escape(LORA_WEIGHTS)})"
)
# A LoRA as PEFT writes it: how it is computed, and its matrices.
LORA_FILES: Final = (LORA_CONFIG, LORA_WEIGHTS)
_DATA: Final = re.compile(
    _MODULE + r"(\w[\w-]*\.json|vocab\.txt|merges\.txt|\w[\w.-]*\.model)"
    r"|labels_tokenizer/tokenizer\.json|encoder_config/config\.json"
)
_SAFETENSORS: Final = re.compile(_MODULE + r"model(?P<rest>-\d+-of-\d+\.safetensors|\.safetensors(\.index\.json)?)")
_PICKLE: Final = re.compile(_MODULE + r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
_GRAPH: Final = re.compile(r"([\w-]+/)*[\w-][\w.-]*\.onnx")
_HEAD: Final = re.compile(r"(?!optimizer|scheduler|rng_state|training)\w[\w-]*\.pt")
# The same heads in a safe file. Other files beside the model's are copies of it, or parts of another one.
_SAFE_HEAD: Final = re.compile(r"(?P<name>\w+_linear)\.safetensors")


def is_needed(path: str, *, allow_pickle: bool, graph: str | None = None) -> bool:
    """True for a file that some model family reads; a path that leaves its folder is none.

    With an ONNX `graph` that file, and the one beside it that large graphs keep their numbers in, are the weights.
    """
    if graph is not None:
        is_graph = path in {graph, f"{graph}_data"} and _GRAPH.fullmatch(graph) is not None
        return is_graph or _DATA.fullmatch(path) is not None
    patterns = (_DATA, _SAFETENSORS, _SAFE_HEAD, _TASK, *((_PICKLE, _HEAD) if allow_pickle else ()))
    return any(pattern.fullmatch(path) for pattern in patterns)


def select_lora(paths: Collection[str]) -> list[str]:
    """The files of a LoRA, which are never pickles.

    Raises:
        LoadError: NOT_FOUND naming a file that the repository lacks.
    """
    missing = [name for name in LORA_FILES if name not in paths]
    if missing:
        raise LoadError(ErrorClass.NOT_FOUND, f"the repository has no {' and no '.join(missing)}, so it is no LoRA")
    return list(LORA_FILES)


def select(paths: Collection[str], *, allow_pickle: bool, graph: str | None = None) -> list[str]:
    """The files to fetch of all that a repository has: of weights in several forms, one.

    Raises:
        LoadError: DEPENDENCY when weights are published as pickles only and those are not allowed, NOT_FOUND when there
            are none that can be read.
    """
    if graph is not None:
        if graph not in paths:
            raise LoadError(ErrorClass.NOT_FOUND, f"the repository has no {graph}")
        return [path for path in sorted(paths) if is_needed(path, allow_pickle=False, graph=graph)]
    safe = [found for path in paths if (found := _SAFETENSORS.fullmatch(path))]
    folders = {found["folder"] for found in safe}
    whole = {found["folder"] for found in safe if found["rest"] == ".safetensors"}
    redundant = {found[0] for found in safe if found["folder"] in whole and found["rest"] != ".safetensors"}
    pickles = [found for path in sorted(paths) if (found := _PICKLE.fullmatch(path))]
    redundant.update(found[0] for found in pickles if found["folder"] in folders)
    redundant.update(f"{found['name']}.pt" for path in paths if (found := _SAFE_HEAD.fullmatch(path)))
    needed_pickles = [found[0] for found in pickles if found[0] not in redundant]
    if needed_pickles and not allow_pickle:
        raise LoadError(
            ErrorClass.DEPENDENCY,
            f"the model is published as a pickle only ({needed_pickles[0]}); if you trust who published it, set "
            "allow_pickle: true in its catalogue file",
        )
    if not folders and not needed_pickles:
        raise LoadError(
            ErrorClass.NOT_FOUND, "the repository has no model.safetensors, nor other weights that are read"
        )
    return [path for path in sorted(paths) if path not in redundant and is_needed(path, allow_pickle=allow_pickle)]
