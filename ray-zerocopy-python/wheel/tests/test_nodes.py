"""Two nodes: weights are transferred once, and all processes of a node borrow them."""

import json
import subprocess
import sys

import numpy as np

SCRIPT = """
import json, sys
import numpy as np
import ray
from ray.cluster_utils import Cluster
import ray_zerocopy as rz

path, arrays = sys.argv[1:]
inputs = dict(np.load(arrays))
store = {"object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"here": 4}, **store})
cluster.add_node(num_cpus=2, resources={"there": 4}, **store)
ray.init(cluster.address, logging_level="warning")
try:
    wrapper = rz.JitActorWrapper(path, strict=True)

    @ray.remote(num_cpus=0)
    class Actor:
        def __init__(self, wrapper):
            self.graph = wrapper.load()

        def run(self, inputs):
            outputs = self.graph(**inputs)
            bits = {name: array.tobytes().hex() for name, array in outputs.items()}
            return ray.get_runtime_context().get_node_id(), self.graph.copied(), bits

    actors = [Actor.options(resources={where: 1}).remote(wrapper) for where in ("here", "there", "there")]
    found = ray.get([actor.run.remote(inputs) for actor in actors])
    tasks = rz.JitTaskWrapper(path, num_cpus=1, resources={"there": 1})
    found.append(("task", 0, {name: array.tobytes().hex() for name, array in tasks(**inputs).items()}))
    print("FOUND", json.dumps(found))
finally:
    ray.shutdown()
    cluster.shutdown()
"""


def test_every_node_has_the_weights_once_and_the_same_bits(traced, tmp_path):
    path, inputs, expected = traced
    np.savez(tmp_path / "inputs.npz", **inputs)
    command = [sys.executable, "-c", SCRIPT, str(path), str(tmp_path / "inputs.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert done.returncode == 0 and lines, done.stdout + done.stderr
    found = json.loads(lines[0].removeprefix("FOUND "))
    expected = {name: array.tobytes().hex() for name, array in expected.items()}
    assert [bits for _, _, bits in found] == [expected] * 4
    assert [copied for _, copied, _ in found] == [0] * 4
    here, there, also_there = (node for node, _, _ in found[:3])
    assert here != there and there == also_there
