"""Rows as a Parquet file, a row group at a time. The schema is that of the first rows.

`id`; `dense` as a list of fixed size; `sparse` as a struct of two lists; `multivector` as a list of fixed-size lists;
`score`, `rank`; `entities`, `classifications`, `relations`, `objects` as lists of structs; `data` as JSON text.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sie_cli.batch.job import Row
from sie_cli.batch.ordered import chunked

ROW_GROUP: Final = 1024  # 4 MB of 1,024 dimensions

_ENTITY: Final = {
    "text": pa.string(),
    "label": pa.string(),
    "score": pa.float64(),
    "start": pa.int64(),
    "end": pa.int64(),
    "bbox": pa.list_(pa.float64()),
}
_LABEL: Final = {"label": pa.string(), "score": pa.float64()}
_RELATION: Final = {"head": pa.string(), "tail": pa.string(), "relation": pa.string(), "score": pa.float64()}
_OBJECT: Final = {**_LABEL, "bbox": pa.list_(pa.float64())}
_LISTS: Final = {"entities": _ENTITY, "classifications": _LABEL, "relations": _RELATION, "objects": _OBJECT}


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """Write the file; an empty input gives a file with the column `id` only."""
    groups = chunked(iter(rows), ROW_GROUP)
    first = next(groups, [])
    schema = schema_of(first[0]) if first else pa.schema([("id", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        group = first
        while group:
            writer.write_table(_table(group, schema), row_group_size=ROW_GROUP)
            group = next(groups, [])


def schema_of(row: Row) -> pa.Schema:
    """The columns of rows like this one."""
    fields = [("id", pa.string())]
    if (dense := row.get("dense")) is not None:
        fields.append(("dense", _vector(dense)))
    if (sparse := row.get("sparse")) is not None:
        parts = {name: pa.list_(pa.from_numpy_dtype(sparse[name].dtype)) for name in ("indices", "values")}
        fields.append(("sparse", pa.struct(parts)))
    if (multivector := row.get("multivector")) is not None:
        fields.append(("multivector", pa.list_(_vector(multivector))))
    for output, way in row.get("quantization", {}).items():
        kind = pa.list_(pa.float32()) if output == "multivector" else pa.float32()
        fields += [(f"{output}_{name}", kind) for name in way]
    fields += [(name, pa.list_(pa.struct(parts))) for name, parts in _LISTS.items() if name in row]
    if "data" in row:
        fields.append(("data", pa.string()))
    fields += [(name, kind) for name, kind in (("score", pa.float64()), ("rank", pa.int64())) if name in row]
    return pa.schema(fields)


def _vector(array: "np.ndarray[Any, np.dtype[Any]]") -> pa.DataType:
    return pa.list_(pa.from_numpy_dtype(array.dtype), array.shape[-1])


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    return pa.table([_column(rows, field) for field in schema], schema=schema)


def _column(rows: list[Row], field: pa.Field) -> pa.Array:
    if field.name == "dense":  # the common case, without a Python object for each number
        flat = np.concatenate([row["dense"] for row in rows])
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), field.type.list_size)
    return pa.array([_value(row, field.name) for row in rows], type=field.type)


def _value(row: Row, name: str) -> Any:
    if name == "data":
        return msgspec.json.encode(row["data"]).decode()
    if name == "multivector":
        return list(row[name])
    output, _, part = name.rpartition("_")
    if output and part in ("scale", "offset"):
        value = row["quantization"][output][part]
        return np.asarray(value).reshape(-1) if output == "multivector" else float(value)
    return row[name]
