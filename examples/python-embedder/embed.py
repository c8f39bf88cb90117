"""Embeds the texts of a Parquet file with a pool of Ray actors, which share one copy of the model's weights.

    python embed.py texts.parquet vectors --actors 2
"""

import argparse

import embedder
import ray


class Embed:
    """An actor of the pool. It loads the pipeline once, and borrows the weights from Ray's object store."""

    def __init__(self, wrapper):
        self.pipeline = wrapper.load()

    def __call__(self, batch):
        batch["embedding"] = self.pipeline.embed(batch["text"])
        return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", help="a Parquet file with a column `text`")
    parser.add_argument("vectors", help="a folder for the Parquet files with the column `embedding` added")
    parser.add_argument("--actors", type=int, default=1, help="how many processes, each with one processor")
    parser.add_argument("--batch", type=int, default=64, help="how many texts each call embeds")
    parser.add_argument("--model", help="a folder with all-MiniLM-L6-v2; by default it is fetched")
    options = parser.parse_args()

    if not ray.is_initialized():
        ray.init()
    processors = int(ray.cluster_resources().get("CPU", 0))
    if options.actors >= processors:
        # Ray would wait forever.
        parser.error(
            f"{options.actors} actors leave none of the cluster's {processors} processors to read and write with: "
            f"--actors {max(1, processors - 1)} at most"
        )

    wrapper = embedder.ActorWrapper(embedder.Embedder.open(options.model))
    texts = ray.data.read_parquet(options.texts)
    vectors = texts.map_batches(
        Embed,
        fn_constructor_args=(wrapper,),
        batch_size=options.batch,
        compute=ray.data.ActorPoolStrategy(size=options.actors),
        num_cpus=1,
    )
    vectors.write_parquet(options.vectors)


if __name__ == "__main__":
    main()
