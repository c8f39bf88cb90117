"""Inputs of all kinds: arrays of every layout, columns of pandas and pyarrow, empty batches."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import ray_zerocopy as rz


@pytest.fixture(scope="module")
def work(traced):
    path, inputs, expected = traced
    return rz.Graph(path), inputs, expected


def same(found, expected):
    for name in expected:
        assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
        assert found[name].tobytes() == expected[name].tobytes(), f"`{name}` has other bits"


def read_only(x):
    x = x.copy()
    x.setflags(write=False)
    return x


@pytest.mark.parametrize(
    "make",
    [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: x[::-1].copy()[::-1], lambda x: x.astype(x.dtype.newbyteorder(">")), read_only],
    ids=["Fortran's order", "every second row", "negative strides", "big-endian", "read-only"],
)
def test_arrays_of_any_layout(work, make):
    graph, inputs, expected = work
    same(graph(**{name: make(array) for name, array in inputs.items()}), expected)


def lists(x):
    return pa.array(x.tolist())


COLUMNS = {
    "pyarrow lists": lists,
    "pyarrow chunked lists": lambda x: pa.chunked_array([lists(x[:2]), lists(x[2:])]),
    "pyarrow lists of a fixed size": lambda x: pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]),
    "pyarrow tensors": pa.FixedShapeTensorArray.from_numpy_ndarray,
    "pandas": lambda x: pd.Series(list(x)),
    "pandas lists": lambda x: pd.Series(x.tolist()),
    "pandas of pyarrow": lambda x: pd.Series(lists(x), dtype=pd.ArrowDtype(lists(x).type)),
    "numpy of objects": lambda x: np.array([*x, None], dtype=object)[:-1],
}


@pytest.mark.parametrize("make", COLUMNS.values(), ids=COLUMNS)
def test_columns_are_arrays(work, make):
    graph, inputs, expected = work
    ids, padding = make(inputs["ids"]), make(inputs["padding"]) if make is not COLUMNS["pyarrow tensors"] else inputs["padding"]
    same(graph(ids=ids, padding=padding), expected)


def test_columns_with_nulls_or_ragged_rows_are_named(work):
    graph, inputs, _ = work
    padding = inputs["padding"]
    with pytest.raises(TypeError, match=r"`ids`: .* cannot be read as an array: it has nulls"):
        graph(ids=pa.array([[1, 2], None]), padding=padding)
    with pytest.raises(TypeError, match=r"`ids`: .* different lengths, 1 and 2"):
        graph(ids=pa.array([[1], [1, 2]]), padding=padding)
    with pytest.raises(TypeError, match=r"`ids`: .* different shapes, \(1,\) and \(2,\)"):
        graph(ids=pd.Series([[1], [1, 2]]), padding=padding)


def test_empty_batches_give_empty_results(work):
    graph, inputs, expected = work
    found = graph(ids=inputs["ids"][:0], padding=inputs["padding"][:0])
    for name in expected:
        assert found[name].shape == (0, *expected[name].shape[1:]) and found[name].dtype == expected[name].dtype
    # Empty sequences have empty results.
    with pytest.raises(ValueError, match="`length` 1 at least, since output `image` would not be empty"):
        graph(ids=inputs["ids"][:, :0], padding=inputs["padding"][:, :0])


@pytest.fixture(scope="module")
def batches(traced, ray):
    return rz.Batches(rz.JitActorWrapper(traced[0]), keep=["key"])


FORMATS = {
    "numpy": lambda columns: columns,
    "pandas": lambda columns: pd.DataFrame({name: list(column) for name, column in columns.items()}),
    "pyarrow": lambda columns: pa.table({name: column.tolist() for name, column in columns.items()}),
}


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
def test_batches_of_every_format(work, batches, make):
    _, inputs, expected = work
    keys = np.array([f"row {row}" for row in range(len(inputs["ids"]))])
    found = batches(make({**inputs, "key": keys}))
    same(found, expected)
    assert isinstance(found["key"], np.ndarray) and found["key"].tolist() == keys.tolist()
    with pytest.raises(ValueError, match="the batch has no column padding; it has ids, key"):
        batches(make({"ids": inputs["ids"], "key": keys}))


def test_empty_batches_of_every_format(work, batches):
    _, _, expected = work
    empty = {"ids": np.empty(0), "padding": np.empty(0), "key": np.empty(0, "int64")}
    for make in FORMATS.values():
        found = batches(make(empty))
        for name in expected:
            # The length of sequences is unknown in an empty batch.
            assert len(found[name]) == 0 and found[name].ndim == expected[name].ndim
            assert found[name].dtype == expected[name].dtype


def test_a_batch_of_something_else_is_named(batches):
    with pytest.raises(TypeError, match="a batch should be a dict of arrays, a pandas.DataFrame or a pyarrow.Table, found builtins.int"):
        batches(3)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_map_batches_with_every_format(traced, ray, work, batch_format):
    path, inputs, _ = traced
    graph = rz.Graph(path)
    ids = np.tile(inputs["ids"], (4, 1))
    padding = np.zeros(ids.shape, bool)
    data = ray.data.from_items([{"key": row, "ids": ids[row], "padding": padding[row]} for row in range(len(ids))])
    mapped = data.map_batches(
        rz.Batches,
        fn_constructor_args=(rz.JitActorWrapper(path),),
        fn_constructor_kwargs={"keep": ["key"]},
        batch_format=batch_format,
        batch_size=8,
        concurrency=1,
    )
    found = mapped.to_pandas().sort_values("key")
    assert list(found["key"]) == list(range(len(ids)))
    assert np.abs(np.stack(found["image"]) - graph(ids=ids, padding=padding)["image"]).max() < 1e-6
