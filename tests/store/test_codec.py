"""Columns as arrays: nulls, and the values that fill them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_store.format import codec


@given(
    values=st.lists(st.none() | st.integers(-(2**60), 2**60), max_size=40),
    start=st.integers(0, 12),
    numbers=st.sampled_from([pa.int64(), pa.float64()]),
)
def test_nulls_are_reported_and_filled_in_any_part_of_a_column(values, start, numbers):
    typed = [value if value is None or numbers == pa.int64() else float(value) for value in values]
    part = pa.array(typed, numbers).slice(start)
    assert codec.valid(part).tolist() == [value is not None for value in typed[start:]]
    filled = codec.filled(part)
    assert filled.dtype == {pa.int64(): "int64", pa.float64(): "float64"}[numbers]
    assert filled.tolist() == [value or 0 for value in typed[start:]]


@pytest.mark.parametrize("width", [1, 3])
def test_empty_keys_differ_from_keys_of_zeros(width):
    keys = pa.array([None, [0.0] * width, None, [1.0] * width], pa.list_(pa.float32(), width))
    assert codec.valid(keys).tolist() == [False, True, False, True]
    assert np.array_equal(codec.valid(keys.slice(1, 2)), [True, False])
