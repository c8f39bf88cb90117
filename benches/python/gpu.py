"""Measures PyTorch pipelines of several processes on one NVIDIA GPU, with and without one shared copy of the weights.

    python benches/python/gpu.py --mib 8192 --processes 4

Each process loads the pipeline and computes. Contestants: bare processes with a context, a plain copy in each process
from one file (`torch.load`, mapped), and `ActorWrapper(..., device="cuda:0")`. Memory is that of the whole GPU, as the
driver counts it, so nothing else should use it. The rates of uploads are compared with copies from page-locked memory.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time

import torch
from torch import nn

DEVICE = "cuda:0"


class Pipeline:
    """Layers of 64 MiB, which differ."""

    def __init__(self, mib):
        self.layers = nn.ModuleList(nn.utils.skip_init(nn.Linear, 4096, 4096, bias=False) for _ in range(mib // 64))
        self.norm = nn.BatchNorm1d(4096)
        with torch.no_grad():
            for at, layer in enumerate(self.layers):
                layer.weight.fill_(1 / (4096 + at))

    def __call__(self, rows):
        for layer in self.layers:
            rows = self.norm(layer(rows))
        return rows


def used():
    """The memory of the GPU that is in use, in MiB."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def worker(connection, contestant, given):
    """One process: loads when it is told to, computes, and keeps the pipeline until it is told to end."""
    torch.cuda.init()
    # A first product, since libraries of CUDA take memory when they are first used.
    torch.ones(8, 64, device=DEVICE) @ torch.ones(64, 64, device=DEVICE)
    connection.send("ready")
    connection.recv()
    begun = time.perf_counter()
    if contestant == "bare":
        pipeline = None
    elif contestant == "copies":
        pipeline = torch.load(given, weights_only=False, mmap=True)
        for module in (pipeline.layers, pipeline.norm):
            module.to(DEVICE).eval()
    else:
        pipeline = given.load()
    torch.cuda.synchronize()
    took = time.perf_counter() - begun
    answer = None
    if pipeline is not None:
        with torch.inference_mode():
            answer = float(pipeline(torch.ones(8, 4096, device=DEVICE)).double().sum())
    connection.send((took, answer))
    connection.recv()


def measure(contestant, given, processes):
    """Lets processes load one after the other. Returns the times, the memory in MiB and the answers."""
    context = multiprocessing.get_context("spawn")
    before, started, loads = used(), [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(theirs, contestant, given))
        process.start()
        started.append((process, ours))
    for _, connection in started:
        connection.recv()
    for _, connection in started:
        connection.send("load")
        loads.append(connection.recv())
    memory = used() - before
    for process, connection in started:
        connection.send("end")
        process.join()
    return [took for took, _ in loads], memory, [answer for _, answer in loads]


def pinned_rate(mib=1024):
    """GB/s of copies from page-locked memory."""
    source = torch.empty(mib << 20, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(mib << 20, dtype=torch.uint8, device=DEVICE)
    rates = []
    for _ in range(5):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        rates.append(source.nbytes / 1e9 / (time.perf_counter() - begun))
    return statistics.median(rates)


def write_fails(wrapper):
    """Writes to a shared weight in a process of its own. Returns the first line of the error."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=write, args=(theirs, wrapper))
    process.start()
    line = ours.recv()
    process.join()
    return line


def write(connection, wrapper):
    pipeline = wrapper.load()
    try:
        pipeline.layers[0].weight.fill_(0.0)
        torch.cuda.synchronize()
        connection.send("the write was not refused")
    except RuntimeError as error:
        connection.send(str(error).splitlines()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=8192, help="size of the weights, a multiple of 64")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--folder", help="folder for the file of the plain copies, by default the system's for temporary files")
    arguments = parser.parse_args()

    import ray_zerocopy as rz

    machine = f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, {os.cpu_count()} cores"
    print(f"{machine}; {arguments.mib} MiB of weights, {arguments.processes} processes", flush=True)
    pipeline = Pipeline(arguments.mib)
    gigabytes = arguments.mib * (1 << 20) / 1e9
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        file = os.path.join(folder, "pipeline.pt")
        torch.save(pipeline, file)
        begun = time.perf_counter()
        wrapper = rz.ActorWrapper(pipeline, device=DEVICE, strict=True)
        print(f"share: {time.perf_counter() - begun:.2f} s")
        del pipeline
        expected = None
        for contestant, given in (("bare", None), ("copies", file), ("shared", wrapper)):
            times, memory, answers = measure(contestant, given, arguments.processes)
            line = f"{contestant:>7}: {memory:>7} MiB of the GPU"
            if answers[0] is not None:
                each = ", ".join(f"{1000 * took:.1f}" for took in times)
                line += f"; loads {each} ms, the first at {gigabytes / times[0]:.1f} GB/s"
            print(line, flush=True)
            if answers[0] is not None:
                expected = expected or answers[0]
                assert answers == [expected] * arguments.processes, answers
        print("all answers are equal")
    print(f"copies from page-locked memory: {pinned_rate():.1f} GB/s")
    print(f"a write to a shared weight: {write_fails(wrapper)}")
    time.sleep(1)
    print(f"in use at the end, with this process: {used()} MiB")


if __name__ == "__main__":
    main()
