"""Ray Serve: replicas of a pipeline, and of a traced graph, with one copy of the weights per node.

Ray starts another replica when requests wait. It loads in milliseconds and takes no memory for the weights, so that scaling up
costs a process and not a model.

    python ray_serve.py                      # then: curl localhost:8000/classify -d '{"rows": [[0, 1, 2, 3]]}'
    python ray_serve.py --graph model.rzg    # and:  curl localhost:8000/graph -d '{"rows": [[0, 1, 2, 3]]}'    (its inputs)
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import signal
import sys

import ray
from ray import serve

from ray_zerocopy import ActorWrapper, Graph, JitActorWrapper

# The pipeline of the example `service`.
sys.path.append(str(pathlib.Path(__file__).parent / "service"))

# Ray decides by the last two seconds and not, as by default, by the last thirty: a replica that was not needed costs little.
AUTOSCALING = {
    "min_replicas": 1,
    "max_replicas": 3,
    "target_ongoing_requests": 2,
    "metrics_interval_s": 1,
    "look_back_period_s": 2,
    "upscale_delay_s": 1,
    "downscale_delay_s": 60,
}


@serve.deployment(autoscaling_config=AUTOSCALING, ray_actor_options={"num_cpus": 1})
class Classifier:
    """A replica of a pipeline of PyTorch. Requests that wait are computed together."""

    def __init__(self, wrapper):
        self.wrapper = wrapper
        self.classify_rows = wrapper.load()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002)
    async def classify(self, rows):
        """Classifies rows of several requests. Computes on a thread, so that the replica takes requests meanwhile."""
        return await asyncio.to_thread(self.classify_rows, rows)

    async def __call__(self, request):
        if request.method == "GET":
            return [row["pid"] for row in self.wrapper.report().processes]
        rows = (await request.json())["rows"]
        return {"classes": await asyncio.gather(*map(self.classify, rows)), "pid": os.getpid()}


@serve.deployment(autoscaling_config=AUTOSCALING, ray_actor_options={"num_cpus": 1})
class GraphModel:
    """A replica of a traced graph, which needs no PyTorch. The body is its inputs by name."""

    def __init__(self, wrapper):
        self.graph = wrapper.load()

    async def __call__(self, request):
        inputs = await request.json()
        outputs = await asyncio.to_thread(lambda: self.graph(**inputs))
        return {name: output.tolist() for name, output in outputs.items()}


def main():
    """Runs the applications until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="port of HTTP (default: 8000)")
    parser.add_argument("--graph", help="a traced graph to serve as well")
    parser.add_argument("--cpus", type=int, help="CPUs of the cluster; by default, those of the machine")
    arguments = parser.parse_args()

    # Replicas import the pipeline's module.
    path = os.pathsep.join([*sys.path[-1:], *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(num_cpus=arguments.cpus, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    serve.start(http_options={"port": arguments.port})

    from model import make_pipeline

    serve.run(Classifier.bind(ActorWrapper(make_pipeline())), name="classify", route_prefix="/classify")
    if arguments.graph:
        serve.run(GraphModel.bind(JitActorWrapper(Graph(arguments.graph))), name="graph", route_prefix="/graph")
    print("listening", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    serve.shutdown()


if __name__ == "__main__":
    main()
