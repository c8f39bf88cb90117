"""Compares results of the module and the script with those of the model's authors and of Rust."""

import doctest
import json
import os
import pathlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embed
import embedder

PROJECT = pathlib.Path(__file__).parents[1]
REFERENCE = PROJECT.parent / "data" / "minilm_reference.json"
CORPUS = PROJECT.parent / "data" / "corpus.txt"


def test_vectors_are_the_models(pipeline):
    reference = json.loads(REFERENCE.read_text())
    found = pipeline.embed([sentence["text"] for sentence in reference["sentences"]])
    expected = np.array([sentence["embedding"] for sentence in reference["sentences"]], "float32")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_errors_say_what_is_wrong(pipeline):
    with pytest.raises(embedder.PipelineError, match="nowhere lacks model.safetensors"):
        embedder.Embedder.open("/nowhere")
    with pytest.raises(TypeError, match=r"`texts` should be `Sequence\[str\]`"):
        pipeline.embed([1, 2])
    with pytest.raises(TypeError, match="Embedder is constructed with Embedder.open"):
        embedder.Embedder()
    assert pipeline.embed([]).shape == (0, 384)


def test_documentation_runs():
    runner = doctest.DocTestRunner()
    results = [runner.run(test) for test in doctest.DocTestFinder().find(embedder.Embedder)]
    assert sum(result.attempted for result in results) == 4
    assert not any(result.failed for result in results)


def test_stubs_are_those_of_the_module():
    assert (PROJECT / "embedder.pyi").read_text() == embedder.stubs(), "see the README for the command that generates the stubs"


@pytest.fixture(scope="module")
def ray():
    import ray

    # CPUs as counted by Ray, which may be more than the machine has.
    ray.init("local", num_cpus=4, include_dashboard=False, logging_level="warning")
    yield ray
    ray.shutdown()


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["embed.py", *map(str, arguments)])
    embed.main()


def test_the_script_embeds_a_parquet_file(ray, pipeline, tmp_path, monkeypatch):
    texts = [line for line in CORPUS.read_text().splitlines() if line]
    number = list(range(len(texts)))
    pq.write_table(pa.table({"text": texts, "number": number}), tmp_path / "texts.parquet", row_group_size=64)
    run(monkeypatch, tmp_path / "texts.parquet", tmp_path / "vectors", "--actors", 2, "--batch", 32)
    table = pq.read_table(tmp_path / "vectors").sort_by("number")
    assert table["number"].to_pylist() == number and table["text"].to_pylist() == texts
    found = np.array(table["embedding"].to_pylist(), "float32")
    # Ray Data forms other batches, whose padding changes the order of sums and so the last bits.
    expected = pipeline.embed(texts)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-6


def test_the_script_asks_for_no_more_than_there_is(ray, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "texts.parquet", tmp_path, "--actors", 4)
    assert "--actors 3 at most" in capsys.readouterr().err


def test_actors_give_the_same_bits(ray, pipeline):
    texts = ["How do trains stop?", "Bread rises because of yeast."]

    @ray.remote
    class Actor:
        def __init__(self, wrapper):
            self.pipeline = wrapper.load()

        def embed(self, texts):
            return self.pipeline.embed(texts), os.getpid()

    expected = pipeline.embed(texts)
    found, pid = ray.get(Actor.remote(embedder.ActorWrapper(pipeline)).embed.remote(texts))
    assert pid != os.getpid() and (found == expected).all()
    assert (embedder.TaskWrapper(pipeline).embed(texts) == expected).all()
