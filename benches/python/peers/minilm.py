"""all-MiniLM-L6-v2 as an ONNX model, with the weights of its safetensors file."""

import numpy as np
from onnx import TensorProto

from .graph import Graph
from .safetensors import read_safetensors

HEADS, WIDTH, LAYERS, EPSILON = 12, 384, 6, 1e-12


def build(weights):
    """Builds the model: BERT, the mean over the tokens that are not padding, and a division by the length.

    Inputs are `input_ids` and `attention_mask`, both `[batch, length]` of int64, as Hugging Face names them.
    """
    tensors = read_safetensors(weights)
    graph = Graph()
    ids = graph.input("input_ids", TensorProto.INT64, ["batch", "length"])
    kept = graph.input("attention_mask", TensorProto.INT64, ["batch", "length"])

    def linear(x, name):
        return graph.linear(x, tensors[f"{name}.weight"].T, tensors[f"{name}.bias"])

    def norm(x, name):
        return graph.layer_norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], EPSILON)

    mask = graph.node("Unsqueeze", [graph.node("Unsqueeze", [kept, graph.integers(1)]), graph.integers(2)])
    mask = graph.node("Cast", [mask], to=TensorProto.FLOAT)
    mask = graph.node("Mul", [graph.node("Sub", [graph.floats(1), mask]), graph.floats(-10000)])

    words = graph.node("Gather", [graph.constant(tensors["embeddings.word_embeddings.weight"]), ids])
    length = graph.node("Gather", [graph.node("Shape", [ids]), graph.constant(np.array(1, np.int64))], axis=0)
    end = graph.node("Unsqueeze", [length, graph.integers(0)])
    positions = graph.constant(tensors["embeddings.position_embeddings.weight"][None])
    positions = graph.node("Slice", [positions, graph.integers(0), end, graph.integers(1)])
    first_type = graph.constant(tensors["embeddings.token_type_embeddings.weight"][0])
    x = graph.node("Add", [graph.node("Add", [words, first_type]), positions])
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        parts = [linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        attended = linear(graph.attention(*parts, HEADS, WIDTH, mask), f"{name}.attention.output.dense")
        x = norm(graph.node("Add", [attended, x]), f"{name}.attention.output.LayerNorm")
        inner = graph.gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(graph.node("Add", [linear(inner, f"{name}.output.dense"), x]), f"{name}.output.LayerNorm")

    share = graph.node("Unsqueeze", [graph.node("Cast", [kept], to=TensorProto.FLOAT), graph.integers(2)])
    total = graph.node("ReduceSum", [graph.node("Mul", [x, share]), graph.integers(1)], keepdims=0)
    count = graph.node("ReduceSum", [share, graph.integers(1)], keepdims=0)
    mean = graph.node("Div", [total, count])
    size = graph.node("ReduceL2", [mean], axes=[1], keepdims=1)
    size = graph.node("Max", [size, graph.floats(1e-12)])
    graph.output(graph.node("Div", [mean, size]), ["batch", WIDTH])
    return graph.model()
