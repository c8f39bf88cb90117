"""Converts columns of pandas and pyarrow to numpy arrays.

Neither library is imported here: a caller that has such a column has already imported it.
"""

import sys

import numpy


def array(column):
    """Converts a column to an array that numpy or DLPack can read, without a copy if possible.

    Returns None if it is not a column.

    Raises TypeError if it has nulls, or rows of different shapes.
    """
    if isinstance(column, numpy.ndarray):
        return _stack(column) if column.dtype == object and column.ndim == 1 else None
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow and isinstance(column, (pyarrow.ChunkedArray, pyarrow.Array)):
        found = _arrow(pyarrow, column)
        return None if found is column else found
    pandas = sys.modules.get("pandas")
    if pandas and isinstance(column, (pandas.Series, pandas.api.extensions.ExtensionArray)):
        return _pandas(pandas, column)
    return None


def to_numpy(column):
    """Converts a column to a numpy array for Ray Data, including nulls and text."""
    if isinstance(column, numpy.ndarray):
        return column
    try:
        found = array(column)
        if isinstance(found, numpy.ndarray):
            return found
    except TypeError:
        pass  # Columns with nulls, or rows of different shapes, are converted below.
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow and isinstance(column, pyarrow.Array):
        return column.to_numpy(zero_copy_only=False)
    return column.to_numpy() if hasattr(column, "to_numpy") else column


def _arrow(pyarrow, column):
    if isinstance(column, pyarrow.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if column.null_count:
        raise TypeError("it has nulls")
    kind = column.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        # Tensor extension types of pyarrow or Ray.
        found = column.to_numpy_ndarray() if hasattr(column, "to_numpy_ndarray") else column.to_numpy(zero_copy_only=False)
        return _stack(found) if found.dtype == object else found
    if pyarrow.types.is_fixed_size_list(kind):
        size = kind.list_size
    elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        sizes = column.value_lengths().unique().to_pylist()
        if len(sizes) > 1:
            raise TypeError(f"its rows have different lengths, {sizes[0]} and {sizes[1]}")
        size = sizes[0] if sizes else 0
    else:
        return column
    inner = _arrow(pyarrow, column.flatten())
    if not isinstance(inner, numpy.ndarray):
        inner = inner.to_numpy(zero_copy_only=False)
    return inner.reshape(len(column), size, *inner.shape[1:])


def _pandas(pandas, column):
    values = column.array if isinstance(column, pandas.Series) else column
    if isinstance(values.dtype, pandas.ArrowDtype):
        found = _arrow(sys.modules["pyarrow"], values.__arrow_array__())
        return found if isinstance(found, numpy.ndarray) else found.to_numpy(zero_copy_only=False)
    # NumPy arrays do not have nulls: NaN is a value there.
    if not isinstance(values, pandas.arrays.NumpyExtensionArray) and values.isna().any():
        raise TypeError("it has nulls")
    found = values.to_numpy()
    return _stack(found) if found.dtype == object else found


def _stack(rows):
    rows = [numpy.asarray(row) for row in rows]
    shapes = list(dict.fromkeys(row.shape for row in rows))
    if len(shapes) > 1:
        raise TypeError(f"its rows have different shapes, {shapes[0]} and {shapes[1]}")
    return numpy.stack(rows) if rows else numpy.empty(0)
