"""Plain values as arguments and results, errors, panics, and the generated Python methods."""

import doctest
import inspect
import os
import pathlib
import pickle
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import probe


def test_values_come_back(pipeline):
    assert pipeline.values(1.5, 2**64 - 1, True) == (1.5, 2**64 - 1, True, None)
    assert pipeline.values(1, 0, False, "é") == (1.0, 0, False, "é")
    assert pipeline.values(np.float32(0.5), np.int64(3), np.bool_(True)) == (0.5, 3, True, None)
    assert pipeline.bytes(b"\x00\xff") == [0, 255]
    assert pipeline.bytes([1, 2]) == [1, 2]
    for order in ["Any", {"By": "date"}]:
        query = {"text": "x", "limit": None, "order": order}
        assert pipeline.query(query) == query


@pytest.mark.parametrize(
    "make",
    [list, tuple, np.array, lambda x: np.array(x, object), pa.array, lambda x: pa.chunked_array([x[:1], x[1:]]), pd.Series],
    ids=["list", "tuple", "numpy", "numpy of objects", "pyarrow", "chunked", "pandas"],
)
def test_texts_come_from_anywhere(pipeline, make):
    assert pipeline.texts(make(["a", "é", ""])) == ["a", "é", ""]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.values("x", 1, True), TypeError, r"Probe\.values\(\): `x` should be `float`, found str: .*"),
        (lambda p: p.values(1, -1, True), TypeError, r"`n` should be `int`, found int: .*"),
        (lambda p: p.values(1, 1.5, True), TypeError, r"`n` should be `int`, found float"),
        (lambda p: p.values(1, 2**64, True), ValueError, r"`n` is 18446744073709551616, which does not fit"),
        (lambda p: p.values(1, 1, 1), TypeError, r"`flag` should be `bool`"),
        (lambda p: p.values(1, 1, True, 5), TypeError, r"`name` should be `str \| None`"),
        (lambda p: p.texts("text"), TypeError, r"`texts` should be `Sequence\[str\]`"),
        (lambda p: p.texts(["a", object()]), TypeError, r"`texts\[1\]` is a `object`, which cannot be sent"),
        (lambda p: p.texts(["a", "\ud800"]), ValueError, r"`texts\[1\]`"),
        (lambda p: p.query({"text": "x"}), TypeError, r"`query` should be `Any`, found dict: .*missing field `order`"),
        (lambda p: p.query({"text": {1: {2: set()}}}), TypeError, r"`query\['text'\]\[1\]\[2\]` is a `set`"),
        (lambda p: p.bytes([256]), TypeError, r"`data` should be"),
        (lambda p: p.same1(), TypeError, r"missing 1 required positional argument: 'x'"),
        (lambda p: p.same1(x=[1.0], y=2), TypeError, r"unexpected keyword argument 'y'"),
        (lambda p: p.same1([1.0], [2.0]), TypeError, r"takes 2 positional arguments but 3 were given"),
    ],
)
def test_errors_name_the_mismatched_value(pipeline, call, error, message):
    with pytest.raises(error, match=message):
        call(pipeline)


def test_self_referencing_list_is_rejected(pipeline):
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested more than 128 deep"):
        pipeline.texts(endless)


def test_positional_and_keyword_arguments(pipeline):
    assert pipeline.values(n=1, x=2, name="n", flag=False) == (2.0, 1, False, "n")
    assert pipeline.words(lambda_=1, name=2) == 3
    assert str(inspect.signature(pipeline.values)) == "(x, n, flag, name=None)"
    rows = np.ones((2, 3), "float32")
    assert (pipeline(rows) == pipeline.call(rows=rows)).all()


def test_errors_of_a_method_are_exceptions_with_their_value(pipeline):
    assert pipeline.half(4) == 2
    with pytest.raises(probe.PipelineError, match=r"Probe\.half\(\) failed: 3 is odd") as error:
        pipeline.half(3)
    assert error.value.error == "3 is odd"
    assert pipeline.ones(2).tolist() == [1, 1]
    with pytest.raises(probe.PipelineError) as error:
        pipeline.ones(10)
    assert error.value.error == {"By": "size"}
    assert pickle.loads(pickle.dumps(error.value)).error == {"By": "size"}


def test_a_panic_keeps_its_message_and_says_where(pipeline):
    with pytest.raises(probe.PanicError, match=r"Probe\.clash\(\) panicked in process \d+ on .*: no more bread \(.*probe\.rs:\d+\)") as error:
        pipeline.clash("bread")
    assert (error.value.method, error.value.pid) == ("Probe.clash", os.getpid())
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    # The panic has not modified the pipeline, which stays usable.
    assert pipeline.half(2) == 1


def test_pipeline_is_unusable_after_a_panic_in_a_mutating_method(pipeline):
    with pytest.raises(probe.PanicError, match="half way"):
        pipeline.spoil()
    with pytest.raises(probe.PanicError, match="an earlier panic left the pipeline partly modified; construct it again: half way"):
        pipeline.count()


def test_constructors():
    assert probe.Probe(width=2).weights().shape == (2, 2)
    assert probe.Probe.checked(2).weights().shape == (2, 2)
    with pytest.raises(probe.PipelineError, match=r"Probe\.checked\(\) failed: 3 is more than 2"):
        probe.Probe.checked(3, limit=2)
    with pytest.raises(TypeError, match=r"Probe\.new\(\): `width` should be `int`"):
        probe.Probe("wide")


def test_state_is_the_pipelines(pipeline):
    assert [pipeline.count(), pipeline.count()] == [1, 2]
    assert probe.Probe(3).count() == 1


def test_threads_take_turns(pipeline):
    rows = np.ones((64, 3), "float32")
    threads = [threading.Thread(target=lambda: [(pipeline.count(), pipeline(rows)) for _ in range(100)]) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert pipeline.count() == 401


def test_a_pipeline_is_not_pickled(pipeline):
    with pytest.raises(TypeError, match="send ActorWrapper"):
        pickle.dumps(pipeline)


def test_documentation():
    assert probe.Probe.__doc__ == "A small model.\n\nIt is for tests."
    assert probe.Probe.half.__doc__ == "Returns half of an even number."
    assert "rust" not in probe.Probe.call.__doc__
    assert repr(probe.Probe(2)) == "<probe.Probe>"
    tests = doctest.DocTestFinder().find(probe.Probe, globs={})
    runner = doctest.DocTestRunner()
    results = [runner.run(test) for test in tests]
    assert sum(result.attempted for result in results) == 2
    assert not any(result.failed for result in results)


def test_stubs():
    stubs = probe.stubs()
    compile(stubs, "probe.pyi", "exec")
    expected = pathlib.Path(__file__).with_name("probe.pyi")
    if os.environ.get("BLESS"):
        expected.write_text(stubs)
    assert stubs == expected.read_text(), "BLESS=1 accepts it"
    # Every function of the stubs exists, with the same parameters.
    named = {}
    exec(compile(f"from __future__ import annotations\n{stubs}", "probe.pyi", "exec"), named)
    for name, method in vars(named["Probe"]).items():
        if inspect.isfunction(method):
            said, real = inspect.signature(method), inspect.signature(getattr(probe.Probe, name))
            assert list(said.parameters) == list(real.parameters), name
            assert [p.default for p in said.parameters.values()] == [p.default for p in real.parameters.values()], name
    assert set(probe.__all__) <= set(named)
