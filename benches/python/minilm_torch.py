"""Runs all-MiniLM-L6-v2 in PyTorch for the benchmark `torchscript`: reads lines of JSON with batches, and writes lines with durations."""

import json
import sys
import time

import safetensors.torch
import torch
import torch.nn.functional as F

HEADS = 12


def forward(weights, ids):
    """Computes unit vectors of sentences of one length, as the published model does."""

    def linear(x, name):
        return F.linear(x, weights[name + ".weight"], weights[name + ".bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"], 1e-12)

    batch, length = ids.shape
    x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])
    x = x + weights["embeddings.position_embeddings.weight"][:length] + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}."
        parts = (linear(x, f"{name}attention.self.{part}") for part in ("query", "key", "value"))
        parts = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(batch, length, -1)
        x = norm(x + linear(attended, name + "attention.output.dense"), name + "attention.output.LayerNorm")
        inner = F.gelu(linear(x, name + "intermediate.dense"))
        x = norm(x + linear(inner, name + "output.dense"), name + "output.LayerNorm")
    return F.normalize(x.mean(1), dim=1)


def main():
    weights = None
    for line in sys.stdin:
        order = json.loads(line)
        if weights is None:
            torch.set_num_threads(order["threads"])
            weights = safetensors.torch.load_file(order["weights"])
        vectors = []
        begun = time.perf_counter()
        with torch.inference_mode():
            for at, batch in enumerate(order["batches"]):
                found = forward(weights, torch.tensor(batch)).numpy()
                if at == 0 and order["vectors"]:
                    vectors = found.ravel().tolist()
        print(json.dumps({"seconds": time.perf_counter() - begun, "vectors": vectors}), flush=True)


if __name__ == "__main__":
    main()
