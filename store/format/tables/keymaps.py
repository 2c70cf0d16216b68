"""Key map files: one row, the key map that a commit put in force."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from melo_store.errors import InvalidEditError
from melo_store.format import codec
from melo_store.records import KeyMap, Vector

SCHEMA = pa.schema(
    [
        pa.field("settings", pa.string(), nullable=False),
        pa.field("name", pa.list_(pa.string()), nullable=False),
        pa.field("shape", pa.list_(pa.list_(pa.int64())), nullable=False),
        pa.field("values", pa.list_(pa.large_list(pa.float32())), nullable=False),
    ]
)


def encode(key_map: KeyMap) -> Any:
    """A key map as a record batch of one row.

    Raises:
        InvalidEditError: its settings are no JSON values.
    """
    try:
        settings = json.dumps(dict(key_map.settings), ensure_ascii=False, allow_nan=False)
        names = pa.array([list(key_map.arrays)], pa.list_(pa.string()))
        settings_column = pa.array([settings], pa.string())
    except (TypeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise InvalidEditError(f"the settings of a key map must be JSON values ({error})") from error
    arrays = list(key_map.arrays.values())
    shapes = pa.array([[list(array.shape) for array in arrays]], pa.list_(pa.list_(pa.int64())))
    values = pa.ListArray.from_arrays(pa.array([0, len(arrays)], pa.int32()), codec.number_rows(arrays))
    return pa.RecordBatch.from_arrays([settings_column, names, shapes, values], schema=SCHEMA)


def decode(batch: Any, path: Path) -> KeyMap:
    """The key map in a record batch; its arrays are read-only views.

    Raises:
        DamagedProjectError: it contradicts itself.
    """
    with codec.damage(path):
        if batch.num_rows != 1:
            raise ValueError(f"it holds {batch.num_rows} key maps instead of 1")
        if any(batch.column(name).values.null_count for name in ("name", "shape", "values")):
            raise ValueError("an array has null values")
        names = batch.column("name")[0].as_py()
        shapes = batch.column("shape")[0].as_py()
        rows = codec.ragged(batch.column("values")[0].values)
        if len(set(names)) != len(names) or not len(names) == len(shapes) == len(rows.starts):
            raise ValueError("its arrays do not match their names")
        arrays = {
            name: cast("Vector", rows.row(at)).reshape(_shape(shape, int(rows.lengths[at])))
            for at, (name, shape) in enumerate(zip(names, shapes, strict=True))
        }
        return KeyMap(codec.json_mapping(batch.column("settings")[0].as_py()), arrays)


def _shape(shape: list[int], size: int) -> list[int]:
    if any(each < 0 for each in shape) or math.prod(shape) != size:
        raise ValueError(f"an array of shape {shape} has {size} values")
    return shape
