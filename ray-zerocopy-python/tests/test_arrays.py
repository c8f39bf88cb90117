"""Arrays as arguments and results: borrowed if possible, otherwise copied once, rejected if they do not fit."""

import array
import ctypes

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import probe


def address(x):
    return x.__array_interface__["data"][0]


def frozen(x):
    x.setflags(write=False)
    return x


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_floats_keep_their_type_and_memory(pipeline, dtype):
    x = frozen(np.arange(6, dtype=dtype).reshape(2, 3))
    y = pipeline.same2(x)
    assert y.dtype == x.dtype and (y == x).all()
    # Argument and result share the same memory.
    assert address(y) == address(x)
    assert not y.flags.writeable
    assert probe.traffic(pipeline) == {"borrowed": 1, "borrowed_bytes": x.nbytes, "copied": 0, "copied_bytes": 0}


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"])
def test_integers_keep_their_type_and_memory(pipeline, dtype):
    x = frozen(np.array([[1, 2], [100, 127]], dtype))
    y = pipeline.int2(x)
    assert y.dtype == x.dtype and (y == x).all() and address(y) == address(x)


def test_booleans(pipeline):
    x = frozen(np.array([True, False, True]))
    y = pipeline.bool1(x)
    assert y.dtype == bool and (y == x).all() and address(y) == address(x)
    with pytest.raises(ValueError, match="neither True nor False"):
        pipeline.bool1(np.array([0, 1, 7], "uint8").view(bool))


def test_results_do_not_share_writable_memory(pipeline):
    x = np.ones((2, 3), "float32")
    y = pipeline.same2(x)
    x[:] = 5
    assert (y == 1).all()
    # The argument was still read in place.
    assert probe.traffic(pipeline)["borrowed"] == 1
    part = pipeline.same1(x[0])
    x[0, 0] = 9
    assert part[0] == 5


def test_what_a_method_may_keep_is_copied(pipeline):
    x = np.ones(4, "float32")
    pipeline.keep(x)
    x[:] = 7
    assert (pipeline.kept() == 1).all()
    assert probe.traffic(pipeline)["copied"] == 1
    y = frozen(np.full(4, 2, "float32"))
    pipeline.keep(y)
    assert address(pipeline.kept()) == address(y), "it is read-only, so it is borrowed"
    del y
    assert (pipeline.kept() == 2).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1][::-1].T.copy().T,
        lambda x: x.astype(">f4"),
        lambda x: np.frombuffer(b"?" + x.tobytes(), "u1")[1:].view("f4").reshape(x.shape),
    ],
    ids=["Fortran's order", "every second column", "transposed", "big-endian", "misaligned"],
)
def test_what_cannot_be_read_in_place_is_copied_once(pipeline, make):
    x = np.arange(12, dtype="float32").reshape(3, 4)
    y = pipeline.same2(make(x))
    assert y.dtype == np.float32 and (y == x).all()
    assert probe.traffic(pipeline) == {"borrowed": 0, "borrowed_bytes": 0, "copied": 1, "copied_bytes": x.nbytes}


def test_rows_of_a_matrix_are_in_one_piece(pipeline):
    x = frozen(np.arange(12, dtype="float32").reshape(3, 4))
    assert address(pipeline.same1(x[1])) == address(x) + 16


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_arrays(pipeline, shape):
    y = pipeline.same2(np.empty(shape, "float32"))
    assert y.shape == shape and y.dtype == np.float32
    assert pipeline.call(np.empty((0, 3), "float32")).shape == (0, 2)


def test_other_buffers(pipeline):
    assert (pipeline.same1(array.array("f", [1, 2])) == [1, 2]).all()
    assert (pipeline.same1((ctypes.c_float * 2)(3, 4)) == [3, 4]).all()
    assert (pipeline.same1(memoryview(np.ones(2, "f4"))) == 1).all()


def test_arrays_of_pyarrow_are_borrowed(pipeline):
    x = pa.array([1.0, 2.0, 3.0], pa.float32())
    y = pipeline.same1(x)
    assert y.tolist() == [1, 2, 3]
    assert address(y) == x.buffers()[1].address
    assert pipeline.same1(x[1:]).tolist() == [2, 3]
    assert pipeline.bool1(pa.array([True, False])).tolist() == [True, False]
    with pytest.raises(TypeError, match=r"`x`.*has nulls"):
        pipeline.same1(pa.array([1.0, None]))


def test_lists_become_float32_int64_and_bool(pipeline):
    assert pipeline.same2([[1, 2], [3.5, 4]]).dtype == np.float32
    assert pipeline.int2([[1, 2]]).dtype == np.int64
    assert pipeline.bool1([True]).tolist() == [True]
    assert pipeline.same1([]).shape == (0,)
    with pytest.raises(TypeError, match="integers"):
        pipeline.int2([[1.5]])
    with pytest.raises(ValueError, match="cannot be made an array"):
        pipeline.same2([[1.0], [1.0, 2.0]])
    with pytest.raises(TypeError, match="floating-point"):
        pipeline.same1(["a"])


def test_bfloat16_arrives_as_float32(pipeline):
    x = np.array([1.0, -2.5, 3.140625, np.inf], "float32")
    y = pipeline.bf16(x)
    assert y.dtype == np.float32 and (y == x).all() and not y.flags.writeable
    assert pipeline.bf16(np.empty(0, "float32")).dtype == np.float32


class Bfloat16:
    """Stand-in for an ml_dtypes array: bits with a dtype called bfloat16."""

    dtype = "bfloat16"

    def __init__(self, bits):
        self.bits = bits
        self.shape = bits.shape

    def view(self, dtype):
        return self.bits.view(dtype)


def test_bfloat16_of_other_libraries(pipeline):
    bits = (np.array([1.0, -2.5], "float32").view("uint32") >> 16).astype("uint16")
    assert pipeline.same1(Bfloat16(frozen(bits))).tolist() == [1.0, -2.5]
    assert probe.traffic(pipeline)["borrowed"] == 1


@pytest.mark.parametrize(
    ("value", "error", "found"),
    [
        (np.ones(3, "f4"), ValueError, r"array of floating.* with 2 dimensions, found numpy.ndarray of float32 and shape \(3,\)"),
        (np.ones((1, 2, 3), "f4"), ValueError, r"with 2 dimensions"),
        (np.float32(1), TypeError, r"found numpy.float32"),
        (np.ones((2, 3), "i4"), TypeError, r"found numpy.ndarray of int32 and shape \(2, 3\)"),
        (np.ones((2, 3), "c8"), TypeError, r"complex64"),
        (np.array([["a"]]), TypeError, r"<U1"),
        (np.array([[object()]]), TypeError, r"object"),
        (np.zeros((2, 2), [("a", "f4")]), TypeError, r"float"),
        ("text", TypeError, r"found str"),
        (None, TypeError, r"found NoneType"),
        (3.0, TypeError, r"found float"),
        ({}, TypeError, r"found dict"),
    ],
)
def test_unsuitable_values_are_rejected(pipeline, value, error, found):
    with pytest.raises(error, match=r"Probe\.same2\(\): `x` should be .*" + found):
        pipeline.same2(value)


@pytest.mark.parametrize(
    "value",
    [np.float32(1.5), np.array(1.5, "float32"), 1.5, np.array(1.5, ">f4")],
    ids=["scalar", "no dimensions", "number", "big-endian without dimensions"],
)
def test_one_number_is_a_row_of_one(pipeline, value):
    y = pipeline.same1(value)
    assert y.shape == (1,) and y.dtype == np.float32 and y.tolist() == [1.5]
    with pytest.raises((TypeError, ValueError), match="with 2 dimensions"):
        pipeline.same2(value)


def test_one_number_is_of_the_kind_that_is_expected(pipeline):
    assert pipeline.bool1(np.bool_(True)).tolist() == [True]
    assert pipeline.same1(np.float64(2)).dtype == np.float64
    with pytest.raises(TypeError, match="array of floating-point numbers"):
        pipeline.same1(np.int64(2))
    with pytest.raises(TypeError, match="array of bool"):
        pipeline.bool1(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: pa.array(x.tolist(), pa.list_(pa.float32())),
        lambda x: pa.chunked_array([pa.array(x[:1].tolist(), pa.list_(pa.float32())), pa.array(x[1:].tolist(), pa.list_(pa.float32()))]),
        lambda x: pa.FixedShapeTensorArray.from_numpy_ndarray(x),
        lambda x: pd.Series(list(x)),
        lambda x: pd.DataFrame(x),
    ],
    ids=["pyarrow", "chunked", "tensors", "pandas", "data frame"],
)
def test_columns_of_tables_are_arrays(pipeline, make):
    x = np.arange(6, dtype="float32").reshape(2, 3)
    y = pipeline.same2(make(x))
    assert y.dtype == x.dtype and (y == x).all()


def test_columns_of_numbers(pipeline):
    x = np.array([1.5, np.nan, 3], "float32")
    for column in [pd.Series(x), pd.Series(x).array, pa.chunked_array([x[:1], x[1:]])]:
        assert np.array_equal(pipeline.same1(column), x, equal_nan=True)
    assert pipeline.same1(pd.Series([1.5, 3], dtype=pd.ArrowDtype(pa.float32()))).tolist() == [1.5, 3]
    with pytest.raises(TypeError, match=r"`x`: .* it has nulls"):
        pipeline.same1(pd.Series([1.5, None], dtype="Float32"))
    with pytest.raises(TypeError, match=r"different shapes, \(1,\) and \(2,\)"):
        pipeline.same2(pd.Series([[1.0], [1.0, 2.0]]))


def test_tensors_of_torch(pipeline):
    torch = pytest.importorskip("torch", reason="PyTorch is not in the environment of these tests")
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    expected = x.tolist()
    for tensor in [x, x.T.contiguous().T, x.flip(0).flip(0), torch.repeat_interleave(x, 2, 1)[:, ::2], x.to(torch.bfloat16)]:
        assert pipeline.same2(tensor).tolist() == expected
    assert pipeline.same2(x.to(torch.bfloat16).T.contiguous().T).tolist() == expected
    assert pipeline.same1(torch.tensor(1.5)).tolist() == [1.5]
    for tensor in [x.clone().requires_grad_(), torch.nn.Parameter(x.to(torch.bfloat16))]:
        with pytest.raises(TypeError, match=r"`x`: .* requires a gradient; pass `x.detach\(\)`"):
            pipeline.same2(tensor)
    with pytest.raises(TypeError, match="`x`: "):
        pipeline.same2(x.to_sparse())


def test_weights_are_borrowed_and_read_only(pipeline):
    weights = pipeline.weights()
    assert weights.shape == (3, 2)
    assert address(pipeline.weights()) == address(weights)
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        weights.setflags(write=True)
    del pipeline
    assert np.isfinite(weights).all(), "an array keeps its memory alive"


def test_containers_of_arrays(pipeline):
    x = np.ones(2, "float32")
    one, two = {"a": np.array([1]), "b": np.array([2, 3])}, (x, x.reshape(1, 2))
    found = pipeline.containers([x, x * 2], one, two)
    assert isinstance(found, tuple)
    assert [item.tolist() for item in found[0]] == [[1, 1], [2, 2]]
    assert {name: item.tolist() for name, item in found[1].items()} == {"a": [1], "b": [2, 3]}
    assert found[2] is None
    assert pipeline.containers([], {}, two, x)[2].tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"`list\[1\]` should be an array"):
        pipeline.containers([x, x.reshape(1, 2)], {}, two)
    with pytest.raises(TypeError, match=r"`map\['a'\]` should be an array of integers"):
        pipeline.containers([], {"a": x}, two)
    with pytest.raises(ValueError, match=r"`pair` should be a list of 2, found 1 items"):
        pipeline.containers([], {}, [x])
    with pytest.raises(TypeError, match=r"`map` should be a dict, found list"):
        pipeline.containers([], [], two)
    with pytest.raises(TypeError, match=r"`list` should be a list, found str"):
        pipeline.containers("ab", {}, two)
