"""Measures PyTorch pipelines: memory, load times and calls, of this package and of what users have without it.

    PYTHONPATH=~/.cache/ray-zerocopy/torch python benches/python/pipelines.py --mib 1024 --actors 1 2 4

Contestants on Ray: bare actors that import torch, the same after the driver has traced the model, plain `ray.put` of the model, `ray.put` with
RAY_ENABLE_ZERO_COPY_TORCH_TENSORS=1, `ActorWrapper`, `JITActorWrapper` of a traced module, and both of the predecessor, the package
`ray-zerocopy` 0.2.0 of PyPI. `cargo xtask setup predecessor` fetches it; without it, these rows are missing. Memory is the sum of
the Pss of all processes below this one, which includes the object store. Tasks: Ray's own that returns at once, and `TaskWrapper`
with one tensor and with 400, in turns. Without Ray: a ping-pong over `multiprocessing.Pipe`, and a call of
`TaskWrapper`, in turns. Times are quartiles. Each part runs in a process of its own, for ten minutes at most.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 300


def model(mib):
    import torch

    torch.manual_seed(1)
    return torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False) for _ in range(mib // 4))).eval()


def children(pid):
    for line in subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.splitlines():
        child, parent = map(int, line.split())
        if parent == pid:
            yield child
            yield from children(child)


def pss():
    """The sum of the Pss of this process's descendants and itself, in MB."""
    total = 0
    for pid in [os.getpid(), *children(os.getpid())]:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            pass
    return total * 1024 / 1e6


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024 / 1e6


def quartiles(times, unit):
    """The quartiles of times, in a unit."""
    return [round(each * unit, 3) for each in statistics.quantiles(times, n=4, method="inclusive")]


def memory_on_ray(contestant, mib, actors):
    """Runs in a process of its own. Prints a row."""
    import ray
    import torch

    import ray_zerocopy as rz

    ray.init("local", num_cpus=8, include_dashboard=False, logging_level="error", object_store_memory=(3 * mib) << 20, log_to_driver=False)
    rows = torch.ones(1, 1024)

    @ray.remote(num_cpus=0)
    class Actor:
        def __init__(self, load):
            torch.set_num_threads(1)
            begun = time.perf_counter()
            self.model = load()
            self.took = time.perf_counter() - begun

        def run(self, rows):
            return self.took, None if self.model is None else float(self.model(rows).sum())

    if contestant == "bare":
        load = lambda: None
    elif contestant == "bare, after a trace":
        # PyTorch keeps what it has compiled.
        torch.jit.trace(model(mib), rows)
        load = lambda: None
    elif contestant.startswith("ray.put"):
        # Ray pickles this class by value, so the reference is an argument of the actor.
        references = [ray.put(model(mib))]
        load = lambda: ray.get(references[0])
    elif contestant == "JITActorWrapper":
        script = torch.jit.trace(model(mib), rows)
        wrapper = rz.JITActorWrapper(script)
        del script
        load = wrapper.load
    elif contestant.startswith("predecessor"):
        given = torch.jit.trace(model(mib), rows) if "JIT" in contestant else model(mib)
        kind = rz.JITModelWrapper if "JIT" in contestant else rz.ModelWrapper
        load = kind.from_model(given, mode="actor").load
        del given
    else:
        load = rz.ActorWrapper(model(mib)).load
    # The driver's own copy has been freed: the memory returns to the system.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = pss()
    started = [Actor.remote(load) for _ in range(actors)]
    took = [each for each, _ in ray.get([actor.run.remote(rows) for actor in started])]
    # Another actor, once all code has been read from the disk: its load is the last one.
    row = {"contestant": contestant, "actors": actors, "mb": round(pss()), "idle_mb": round(before)}
    started += [Actor.remote(load) for _ in range(3)]
    took += [each for each, _ in ray.get([actor.run.remote(rows) for actor in started[actors:]])]
    print("ROW", json.dumps({**row, "load_ms": quartiles(took, 1e3)}))
    ray.shutdown()


def latency_of_tasks(contestant):
    """Runs in a process of its own. Prints a row."""
    import ray
    import torch

    import ray_zerocopy as rz

    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)

    # A module: the predecessor makes tasks of the calls of modules, and not of those of pipelines.
    class Model(torch.nn.Module):
        def __init__(self, tensors):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8, bias=False) for _ in range(tensors))

        def forward(self, value):
            return value

    no_op = ray.remote(lambda value: value)
    make = rz.ModelWrapper.for_tasks if contestant == "predecessor" else rz.TaskWrapper
    one, many = make(Model(1)), make(Model(400))
    calls = {"ray": lambda: ray.get(no_op.remote(1)), "1 tensor": lambda: one(1), "400 tensors": lambda: many(1)}
    print("ROW", json.dumps({"contestant": contestant, "task_ms": in_turns(calls, ROUNDS, 1e3)}))
    ray.shutdown()


def echo(connection):
    with contextlib.suppress(EOFError):
        while True:
            connection.send(connection.recv())


def latency_without_ray():
    import torch

    import ray_zerocopy as rz

    class Pipeline:
        def __init__(self):
            self.layer = torch.nn.Linear(8, 8)

        def __call__(self, value):
            return value

    own, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=echo, args=(other,), daemon=True)
    process.start()

    def ping():
        own.send((1, "text"))
        return own.recv()

    with rz.TaskWrapper(Pipeline(), workers=1) as wrapped:
        small = torch.ones(8)
        calls = {"Pipe": ping, "TaskWrapper, a number": lambda: wrapped(1), "TaskWrapper, a small tensor": lambda: wrapped(small)}
        print("ROW", json.dumps({"call_us": in_turns(calls, 2000, 1e6)}))
        large = torch.ones(16 << 20)
        print("ROW", json.dumps({"64_mib_ms": in_turns({"TaskWrapper": lambda: wrapped(large)}, 8, 1e3)}))


def in_turns(calls, rounds, unit):
    for call in calls.values():
        for _ in range(30 if rounds > 30 else 2):
            call()
    took = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - begun)
    first = statistics.median(next(iter(took.values())))
    return {name: {"quartiles": quartiles(each, unit), "ratio": round(statistics.median(each) / first, 2)} for name, each in took.items()}


def share(mib):
    """Time and peak memory of sharing, against `torch.save` into /dev/shm, in turns."""
    import torch

    import ray_zerocopy as rz

    own = model(mib)
    own(torch.ones(1, 1024))
    rz.ActorWrapper(torch.nn.Linear(2, 2)).load()
    idle = peak()
    shared, saved, loads = [], [], []
    for _ in range(3):
        begun = time.perf_counter()
        wrapper = rz.ActorWrapper(own)
        shared.append(time.perf_counter() - begun)
        # The memfd is not mapped while it is written, so it is not in the peak.
        most = peak() - idle + wrapper._weights.arena().size / 1e6
        begun = time.perf_counter()
        loaded = wrapper.load()
        loads.append(time.perf_counter() - begun)
        del loaded, wrapper
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            begun = time.perf_counter()
            torch.save(own.state_dict(), file)
            saved.append(time.perf_counter() - begun)
    row = {"share_s": quartiles(shared, 1), "torch.save_s": quartiles(saved, 1), "load_ms": quartiles(loads, 1e3)}
    ratio = statistics.median(shared) / statistics.median(saved)
    model_mb = sum(each.nbytes for each in own.parameters()) / 1e6
    print("ROW", json.dumps({**row, "ratio": round(ratio, 2), "over_idle_mb": round(most), "model_mb": round(model_mb)}))


def share_on_ray(mib):
    """Peak memory of sharing in the object store: anonymous memory of this process, and shared memory of the machine."""
    import threading

    import ray

    import ray_zerocopy as rz

    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="error", object_store_memory=(2 * mib) << 20, log_to_driver=False)
    own = model(mib)

    def used():
        found = 0
        for path, name in (("/proc/meminfo", "Shmem:"), ("/proc/self/status", "RssAnon:")):
            with open(path) as lines:
                found += next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
        return found / 1e6

    idle, most, done = used(), [0], threading.Event()

    def watch():
        while not done.wait(0.005):
            most[0] = max(most[0], used())

    thread = threading.Thread(target=watch)
    thread.start()
    begun = time.perf_counter()
    wrapper = rz.ActorWrapper(own)
    took = time.perf_counter() - begun
    done.set()
    thread.join()
    print("ROW", json.dumps({"share_on_ray_s": round(took, 3), "over_idle_mb": round(most[0] - idle), "arena": repr(wrapper)}))
    ray.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4])
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "ray-zerocopy"
    parser.add_argument("--predecessor", type=pathlib.Path, default=cache / "predecessor", help="folder with ray-zerocopy 0.2.0")
    parser.add_argument("--part", nargs="*")
    options = parser.parse_args()
    if options.part:
        name, *arguments = options.part
        return globals()[name](*(int(each) if each.isdecimal() else each for each in arguments))
    print(json.dumps({"machine": platform.platform(), "processors": len(os.sched_getaffinity(0)), "python": platform.python_version()}))
    parts = [["share", str(options.mib)], ["share_on_ray", str(options.mib)], ["latency_without_ray"]]
    parts += [["latency_of_tasks", "TaskWrapper"], ["latency_of_tasks", "predecessor"]]
    contestants = ["bare", "bare, after a trace", "ray.put", "ray.put, zero-copy", "ActorWrapper", "JITActorWrapper", "predecessor", "predecessor, JIT"]
    for actors in options.actors:
        parts += [["memory_on_ray", contestant, str(options.mib), str(actors)] for contestant in contestants]
    for part in parts:
        environment = dict(os.environ)
        if "ray.put, zero-copy" in part:
            environment["RAY_ENABLE_ZERO_COPY_TORCH_TENSORS"] = "1"
        if any(each.startswith("predecessor") for each in part):
            if not options.predecessor.is_dir():
                continue
            environment["PYTHONPATH"] = os.pathsep.join([str(options.predecessor), environment.get("PYTHONPATH", "")])
        command = [sys.executable, "-W", "ignore", __file__, "--part", *part]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        except subprocess.TimeoutExpired:
            print(f"{part}: more than ten minutes", flush=True)
            continue
        rows = [line.removeprefix("ROW ") for line in done.stdout.splitlines() if line.startswith("ROW ")]
        print(*(rows or [f"{part}: {done.stderr[-2000:]}"]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
