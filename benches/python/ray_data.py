"""Measures Ray Data with a pool of actors: rows per second, and the share of batches that are read in Ray's object store.

    python benches/python/ray_data.py --json

There are two pipelines: `embedder` of examples/python-embedder, whose batches are texts, in turns with an empty
actor; and the module `probe` of ray-zerocopy-python, whose batches are numbers. `--torch` also embeds with
transformers' own MiniLM, shared as in the Python predecessor of this project, by Ray's zero-copy of torch tensors.
"""

import argparse
import json
import pathlib
import random
import statistics
import time

import numpy as np
import ray

CORPUS = pathlib.Path(__file__).parents[2] / "examples" / "data" / "corpus.txt"


def in_store(array):
    """Returns whether an array is in Ray's object store, by the memory map of this process."""
    at = array.__array_interface__["data"][0]
    for line in open("/proc/self/maps"):
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= at < end:
            return "plasma" in line or "/dev/shm" in line
    return False


def anonymous():
    """Returns the private memory of this process, in bytes: anonymous pages."""
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) << 10
    return 0


class Embed:
    def __init__(self, wrapper):
        before, begun = anonymous(), time.perf_counter()
        self.pipeline = wrapper.load()
        self.load = time.perf_counter() - begun
        self.private = anonymous() - before

    def __call__(self, batch):
        begun = time.perf_counter()
        return embedded(self, self.pipeline.embed(batch["text"]), begun)


class EmbedTorch:
    """The approach of the predecessor: Ray's own zero-copy of torch tensors."""

    def __init__(self, reference, folder):
        import torch
        import transformers

        torch.set_num_threads(1)
        before, begun = anonymous(), time.perf_counter()
        config, weights = ray.get(reference)
        with torch.device("meta"):
            self.model = transformers.BertModel(transformers.BertConfig(**config))
        self.model.load_state_dict(weights, strict=False, assign=True)
        self.model.embeddings.position_ids = torch.arange(config["max_position_embeddings"]).expand((1, -1))
        self.model.embeddings.token_type_ids = torch.zeros((1, config["max_position_embeddings"]), dtype=torch.long)
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.load = time.perf_counter() - begun
        self.private = anonymous() - before

    def __call__(self, batch):
        import torch

        begun = time.perf_counter()
        tokens = self.tokenizer(list(batch["text"]), padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return embedded(self, vectors, begun)


class Nothing:
    """An empty actor, which measures Ray Data itself."""

    load, private = 0.0, 0

    def __call__(self, batch):
        return embedded(self, np.zeros((len(batch["text"]), 384), "float32"), time.perf_counter())


class Score:
    def __init__(self, wrapper, module):
        self.traffic = __import__(module).traffic
        begun = time.perf_counter()
        self.pipeline = wrapper.load()
        self.load = time.perf_counter() - begun

    def __call__(self, batch):
        before = self.traffic(self.pipeline)
        scores = self.pipeline(batch["data"])
        after = self.traffic(self.pipeline)
        borrowed = after["copied"] == before["copied"] and in_store(batch["data"])
        return {"score": scores, "borrowed": np.full(len(scores), borrowed), "load": np.full(len(scores), self.load)}


def embedded(actor, vectors, begun):
    """Returns a batch of results with the durations and memory of its actor."""
    rows = len(vectors)
    columns = {"load": actor.load, "private": actor.private, "seconds": (time.perf_counter() - begun) / max(1, rows)}
    return {"embedding": vectors, **{name: np.full(rows, value) for name, value in columns.items()}}


def ran(data, actor, arguments, options):
    begun = time.perf_counter()
    pool = ray.data.ActorPoolStrategy(size=options.actors)
    found = data.map_batches(
        actor, fn_constructor_args=arguments, batch_size=options.batch, compute=pool, num_cpus=1
    ).materialize()
    return time.perf_counter() - begun, found


def texts(options):
    """Measures rows per second of each contestant, in turns."""
    import embedder

    lines = [line for line in CORPUS.read_text().splitlines() if line]
    data = ray.data.from_items([{"text": lines[i % len(lines)]} for i in range(options.rows)], override_num_blocks=8)
    data = data.materialize()
    ways = {"nothing": (Nothing, ()), "ray-zerocopy": (Embed, (embedder.ActorWrapper(embedder.Embedder.open(options.model)),))}
    if options.torch:
        import safetensors.torch

        config = json.loads((options.torch / "config.json").read_text())
        weights = safetensors.torch.load_file(options.torch / "model.safetensors")
        ways["torch"] = (EmbedTorch, (ray.put((config, weights)), str(options.torch)))
    times, last = {way: [] for way in ways}, {}
    for _ in range(options.rounds):
        for way, (actor, arguments) in ways.items():
            took, last[way] = ran(data, actor, arguments, options)
            times[way].append(took)
    for way in ways:
        took = statistics.median(times[way])
        row = {"what": "texts", "way": way, "rows": options.rows, "actors": options.actors, "seconds": took}
        row["rows_per_second"] = options.rows / took
        if way != "nothing":
            columns = last[way].to_pandas()
            # The time in which actors compute: without their start, and without Ray Data's own work.
            row["rows_per_second_of_actors"] = float(len(columns) / (columns["seconds"].sum() / options.actors))
            row["load_ms"] = float(columns["load"].max() * 1e3)
            row["private_mib_of_load"] = float(columns["private"].max() / 2**20)
        yield row


def arrays(options):
    """Measures the share of batches of numbers that are read in the object store."""
    import probe

    width = 256
    rows = np.random.default_rng(0).random((options.rows * 16, width), "float32")
    data = ray.data.from_numpy(np.array_split(rows, 8)).materialize()
    wrapper = probe.ActorWrapper(probe.Probe(width=width))
    times = []
    for _ in range(options.rounds):
        took, found = ran(data, Score, (wrapper, "probe"), options)
        times.append(took)
    columns = found.to_pandas()
    expected = wrapper.load()(rows)
    equal = np.array_equal(np.sort(np.stack(columns["score"])[:, 0]), np.sort(expected[:, 0]))
    yield {
        "what": "arrays",
        "rows": len(rows),
        "batch": options.batch,
        "actors": options.actors,
        "rows_per_second": len(rows) / statistics.median(times),
        "borrowed_share": float(columns["borrowed"].mean()),
        "load_ms": float(columns["load"].max() * 1e3),
        "equal": bool(equal),
    }


def calls(options):
    """Measures a task of this wheel and an empty Ray task, in turns; and a call in this process."""
    import probe

    pipeline = probe.Probe(width=3)
    tasks, wrapper = probe.TaskWrapper(pipeline), probe.ActorWrapper(pipeline)

    @ray.remote
    def bare():
        return 0

    @ray.remote
    class Actor:
        def __init__(self, wrapper):
            self.pipeline = wrapper.load()

        def bare(self):
            return 0

        def run(self):
            return self.pipeline.pid()

    actor = Actor.remote(wrapper)
    ways = {
        "bare task": lambda: ray.get(bare.remote()),
        "TaskWrapper": tasks.pid,
        "bare actor": lambda: ray.get(actor.bare.remote()),
        "ActorWrapper in an actor": lambda: ray.get(actor.run.remote()),
        "in this process": pipeline.pid,
    }
    times = {way: [] for way in ways}
    for way in ways.values():
        [way() for _ in range(20)]
    order = list(ways.items())
    shuffle = random.Random(0).shuffle
    for _ in range(options.calls):
        # Earlier calls influence the duration of a call, so the order changes.
        shuffle(order)
        for way, call in order:
            begun = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - begun)
    for way in ways:
        yield {"what": "calls", "way": way, "p50_us": statistics.median(times[way]) * 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000, help="number of texts; arrays have 16 times as many rows")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--model", help="folder with all-MiniLM-L6-v2; fetched by default")
    parser.add_argument("--torch", type=pathlib.Path, metavar="MODEL", help="also measure the predecessor's approach, with the model in this folder; requires torch and transformers")
    parser.add_argument("--only", choices=["texts", "arrays", "calls"])
    parser.add_argument("--quick", action="store_true", help="small sizes, to test that the benchmark works")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each row")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.rounds, options.calls = 200, 1, 20
    ray.init("local", num_cpus=options.actors + 2, include_dashboard=False, logging_level="warning", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for measure in [texts, arrays, calls]:
        if options.only in (None, measure.__name__):
            for row in measure(options):
                print(json.dumps(row) if options.json else "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
