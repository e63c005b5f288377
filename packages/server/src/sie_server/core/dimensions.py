"""Shorter vectors than a model's own: who may ask for them, and what they are."""

import numpy as np

from sie_protocol.arrays import Array
from sie_protocol.catalog import ModelConfig
from sie_server.core.options import invalid

SMALLEST_NORM = 1e-12


def check_dimensions(model: ModelConfig, wanted: int) -> None:
    """Refuse a number of components that a model's dense vectors cannot have.

    Raises:
        Problem: INVALID_INPUT.
    """
    task = model.tasks.encode.dense if model.tasks.encode else None
    if task is None or wanted == task.dim:
        return
    if task.min_dim is None:
        raise invalid(f"dimensions is {wanted}; vectors of model '{model.sie_id}' have {task.dim} and stay whole")
    if not task.min_dim <= wanted < task.dim:
        raise invalid(f"dimensions is {wanted}; model '{model.sie_id}' gives {task.min_dim} to {task.dim}")


def shortened(vector: Array, wanted: int) -> Array:
    """The first components of a [dims] vector, at unit length; a whole vector stays what it is."""
    if wanted == len(vector):
        return vector
    start = vector[:wanted]
    unit: Array = start / np.maximum(np.linalg.norm(start), SMALLEST_NORM)
    return unit
