"""Models with random weights, in the shapes of the benchmark's own."""

import numpy as np
from onnx import TensorProto

from .graph import Graph


def stack(width, layers):
    """Linear layers with a ReLU after each, over `x` of `[batch, width]`."""
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["batch", width])
    for _ in range(layers):
        # PyTorch exports a linear layer over a matrix as Gemm, whose weight is `[outputs, inputs]`.
        weight = graph.constant(graph.uniform((width, width), width))
        x = graph.node("Gemm", [x, weight, graph.constant(graph.uniform((width,), width))], transB=1)
        x = graph.node("Relu", [x])
    graph.output(x, ["batch", width])
    return graph.model()


def blocks(width, layers, heads):
    """Transformer blocks over `x` of `[batch, length, width]`."""
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["batch", "length", width])
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    for _ in range(layers):
        parts = [graph.random_linear(x, width, width) for _ in range(3)]
        attended = graph.random_linear(graph.attention(*parts, heads, width), width, width)
        hidden = graph.layer_norm(graph.node("Add", [attended, x]), ones, zeros, 1e-5)
        inner = graph.gelu(graph.random_linear(hidden, width, 4 * width))
        x = graph.node("Add", [graph.random_linear(inner, 4 * width, width), hidden])
    graph.output(x, ["batch", "length", width])
    return graph.model()


def resnet18(size=224, classes=1000):
    """ResNet-18 over `x` of `[batch, 3, size, size]`. ONNX Runtime folds the batch norms."""
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["batch", 3, size, size])

    def convolution(x, inputs, outputs, kernel, stride):
        weight = graph.constant(graph.uniform((outputs, inputs, kernel, kernel), inputs * kernel * kernel))
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        x = graph.node("Conv", [x, weight], **shape)
        uniform = [graph.random.uniform(0.5, 1.5, outputs).astype(np.float32) for _ in range(4)]
        return graph.node("BatchNormalization", [x, *map(graph.constant, uniform)], epsilon=1e-5)

    x = graph.node("Relu", [convolution(x, 3, 64, 7, 2)])
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for stride in (1 if outputs == 64 else 2, 1):
            inner = graph.node("Relu", [convolution(x, inputs, outputs, 3, stride)])
            inner = convolution(inner, outputs, outputs, 3, 1)
            aside = x if inputs == outputs else convolution(x, inputs, outputs, 1, stride)
            x = graph.node("Relu", [graph.node("Add", [inner, aside])])
            inputs = outputs
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    weight = graph.constant(graph.uniform((classes, 512), 512))
    graph.output(
        graph.node("Gemm", [x, weight, graph.constant(graph.uniform((classes,), 512))], transB=1), ["batch", classes]
    )
    return graph.model()


def detector(samples=640, width=128):
    """A detector of speech with the layers of Silero's, over `samples` of `[batch, samples]`, and the states of an LSTM."""
    graph = Graph()
    signal = graph.input("samples", TensorProto.FLOAT, ["batch", samples])
    states = [graph.input(name, TensorProto.FLOAT, ["batch", width]) for name in ("cell", "hidden")]

    def convolution(x, inputs, outputs, kernel, stride, padding, bias=True):
        parts = [x, graph.constant(graph.uniform((outputs, inputs, kernel), inputs * kernel))]
        parts += [graph.constant(graph.uniform((outputs,), inputs * kernel))] if bias else []
        return graph.node("Conv", parts, kernel_shape=[kernel], strides=[stride], pads=[padding] * 2)

    x = graph.node("Unsqueeze", [signal, graph.integers(1)])
    x = convolution(x, 1, 258, 256, 128, 0, bias=False)
    ranges = [(0, 129), (129, 258)]
    parts = [graph.node("Slice", [x, *map(graph.integers, part), graph.integers(1)]) for part in ranges]
    x = graph.node("Sqrt", [graph.node("Add", [graph.node("Mul", [part, part]) for part in parts])])
    for inputs, outputs, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, width, 1)):
        x = graph.node("Relu", [convolution(x, inputs, outputs, 3, stride, 1)])
    weights = [(1, 4 * width, width), (1, 4 * width, width), (1, 8 * width)]
    weights = [graph.constant(graph.uniform(shape, width)) for shape in weights]
    cell, hidden = (graph.node("Unsqueeze", [state, graph.integers(0)]) for state in states)
    x = graph.node("LSTM", [graph.node("Transpose", [x], perm=[2, 0, 1]), *weights, "", hidden, cell], hidden_size=width)
    x = graph.node("Transpose", [graph.node("Squeeze", [x, graph.integers(1)])], perm=[1, 2, 0])
    x = graph.node("Sigmoid", [convolution(graph.node("Relu", [x]), width, 1, 1, 1, 0)])
    graph.output(graph.node("ReduceMean", [x], axes=[2], keepdims=0), ["batch", 1])
    return graph.model()
