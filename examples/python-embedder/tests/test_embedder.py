"""The module, and the script: what they give is what the model's authors got, and what Rust gives."""

import doctest
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embedder

PROJECT = pathlib.Path(__file__).parents[1]
REFERENCE = PROJECT.parent / "data" / "minilm_reference.json"
CORPUS = PROJECT.parent / "data" / "corpus.txt"


def test_vectors_are_the_models(pipeline):
    reference = json.loads(REFERENCE.read_text())
    found = pipeline.embed(reference["sentences"])
    expected = np.array(reference["embeddings"], "float32")
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_errors_say_what_is_wrong(pipeline):
    with pytest.raises(embedder.PipelineError, match="nowhere lacks model.safetensors"):
        embedder.Embedder.open("/nowhere")
    with pytest.raises(TypeError, match=r"`texts` should be `Sequence\[str\]`"):
        pipeline.embed([1, 2])
    with pytest.raises(TypeError, match="use Embedder.open to make a Embedder"):
        embedder.Embedder()
    assert pipeline.embed([]).shape == (0, 384)


def test_documentation_runs():
    runner = doctest.DocTestRunner()
    results = [runner.run(test) for test in doctest.DocTestFinder().find(embedder.Embedder)]
    assert sum(result.attempted for result in results) == 4
    assert not any(result.failed for result in results)


def test_stubs_are_those_of_the_module():
    assert (PROJECT / "embedder.pyi").read_text() == embedder.stubs(), "see the README for how they are made"


def test_the_script_embeds_a_parquet_file(pipeline, tmp_path):
    texts = [line for line in CORPUS.read_text().splitlines() if line]
    number = list(range(len(texts)))
    pq.write_table(pa.table({"text": texts, "number": number}), tmp_path / "texts.parquet", row_group_size=64)
    script = [sys.executable, str(PROJECT / "embed.py"), "texts.parquet", "vectors", "--actors", "2", "--batch", "32"]
    ended = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    table = pq.read_table(tmp_path / "vectors").sort_by("number")
    assert table["number"].to_pylist() == number and table["text"].to_pylist() == texts
    column = table["embedding"].combine_chunks()
    found = np.stack(column.to_numpy_ndarray() if hasattr(column, "to_numpy_ndarray") else column.to_pylist())
    # The batches that Ray makes: padding differs, and with it the order of sums. Each alone is the same bit for bit.
    expected = pipeline.embed(texts)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-6


def test_actors_give_the_same_bits(pipeline):
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="warning")
    try:
        texts = ["How do trains stop?", "Bread rises because of yeast."]

        @ray.remote
        class Actor:
            def __init__(self, wrapper):
                self.pipeline = wrapper.load()

            def embed(self, texts):
                return self.pipeline.embed(texts), os.getpid()

        wrapper = embedder.ActorWrapper(pipeline)
        expected = pipeline.embed(texts)
        found, pid = ray.get(Actor.remote(wrapper).embed.remote(texts))
        assert pid != os.getpid() and (found == expected).all()
        assert (embedder.TaskWrapper(pipeline).embed(texts) == expected).all()
    finally:
        ray.shutdown()
