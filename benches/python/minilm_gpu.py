"""Runs an encoder of MiniLM's shape in PyTorch on a GPU, for the benchmark `gpu`: reads lines of JSON, and writes lines with durations.

A line says how many batches of which size are embedded, and with which numbers: `f32`, `tf32` (products of 32-bit
numbers in TF32) or `bf16`. Token ids come from the processor's memory, and vectors go back there.
"""

import json
import sys
import time

import torch
from minilm_torch import forward

WIDTH, INNER, VOCABULARY, POSITIONS = 384, 1536, 30522, 512


def weights():
    """Random weights with the names and shapes of the published ones."""
    torch.manual_seed(1)

    def linear(name, rows, columns):
        return {f"{name}.weight": torch.randn(rows, columns) / columns**0.5, f"{name}.bias": torch.zeros(rows)}

    def norm(name):
        return {f"{name}.weight": torch.ones(WIDTH), f"{name}.bias": torch.zeros(WIDTH)}

    found = norm("embeddings.LayerNorm")
    for name, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        found[f"embeddings.{name}_embeddings.weight"] = torch.randn(rows, WIDTH)
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            found |= linear(f"{name}.attention.self.{part}", WIDTH, WIDTH)
        found |= linear(f"{name}.attention.output.dense", WIDTH, WIDTH) | norm(f"{name}.attention.output.LayerNorm")
        found |= linear(f"{name}.intermediate.dense", INNER, WIDTH) | linear(f"{name}.output.dense", WIDTH, INNER)
        found |= norm(f"{name}.output.LayerNorm")
    return found


def main():
    original, converted = weights(), {}
    for line in sys.stdin:
        order = json.loads(line)
        numbers, device = order["numbers"], order["device"]
        torch.backends.cuda.matmul.allow_tf32 = numbers == "tf32"
        dtype = torch.bfloat16 if numbers == "bf16" else torch.float32
        if dtype not in converted:
            converted[dtype] = {name: tensor.to(device, dtype) for name, tensor in original.items()}
        ids = torch.randint(VOCABULARY, (order["sentences"], order["tokens"]))
        with torch.inference_mode():
            begun = time.perf_counter()
            for _ in range(order["batches"]):
                forward(converted[dtype], ids.to(device)).float().cpu()
            took = time.perf_counter() - begun
        name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "processor"
        print(json.dumps({"seconds": took, "version": torch.__version__, "name": name}), flush=True)


if __name__ == "__main__":
    main()
