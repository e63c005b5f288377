"""The results of encode: arrays out of an answer. The one module that needs numpy, hence imported when one arrives."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from sie_protocol import arrays
from sie_protocol.errors import Problem
from sie_protocol.items import EncodeResult, Item, Quantization
from sie_sdk.answers import incomplete, malformed
from sie_sdk.messages import Answer

OUTPUTS: Final = ("dense", "sparse", "multivector")


def results(items: Sequence[Item], answer: Answer) -> list[EncodeResult]:
    """One result per item, in their order; arrays are views on the answer's body.

    Raises:
        ServerError: the answer is not one result per item.
    """
    try:
        body = arrays.decode_reply(answer.body)
    except Problem as problem:
        raise malformed(answer, problem.message) from problem
    found = body.get("items") if isinstance(body, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise malformed(answer, "it has no list of items")
    if len(found) != len(items):
        raise incomplete(answer, f"{len(found)} results for {len(items)} items")
    shared = {key: body[key] for key in ("timing", "usage") if isinstance(body.get(key), dict)}
    return [_result(answer, item, each, shared) for item, each in zip(items, found, strict=True)]


def _result(answer: Answer, item: Item, found: dict[str, Any], shared: dict[str, Any]) -> EncodeResult:
    asked_id, found_id = item.get("id"), found.get("id")
    if asked_id is not None and found_id is not None and str(asked_id) != str(found_id):
        raise incomplete(answer, f"the result of item '{found_id}' in the place of item '{asked_id}'")
    result: EncodeResult = {key: value.copy() for key, value in shared.items()}  # type: ignore[assignment]  # as the server gave them
    if (name := found_id if asked_id is None else asked_id) is not None:
        result["id"] = name
    if isinstance(dense := found.get("dense"), dict):
        result["dense"] = _array(answer, dense, "values")
    if isinstance(sparse := found.get("sparse"), dict):
        result["sparse"] = {
            "indices": _array(answer, sparse, "indices"),
            "values": _array(answer, sparse, "values"),
        }
    if isinstance(multivector := found.get("multivector"), dict):
        result["multivector"] = _array(answer, multivector, "values")
    if quantization := _quantization(answer, found):
        result["quantization"] = quantization
    return result


def _quantization(answer: Answer, found: dict[str, Any]) -> dict[str, Quantization]:
    outputs = {kind: output for kind in OUTPUTS if isinstance(output := found.get(kind), dict) and "scale" in output}
    for kind, output in outputs.items():
        wrong = [key for key in ("scale", "offset") if not isinstance(output.get(key, 0), (int, float, np.ndarray))]
        if wrong:
            raise malformed(answer, f"'{wrong[0]}' of '{kind}' is neither a number nor an array")
    ways: dict[str, Quantization] = {kind: {"scale": output["scale"]} for kind, output in outputs.items()}
    for kind, output in outputs.items():
        if "offset" in output:
            ways[kind]["offset"] = output["offset"]
    return ways


def _array(answer: Answer, output: dict[str, Any], key: str) -> arrays.Array:
    value = output.get(key)
    if not isinstance(value, np.ndarray):
        raise malformed(answer, f"'{key}' of a result is {type(value).__name__}, not an array")
    return value
