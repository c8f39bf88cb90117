"""ONNX graphs in the form in which exporters write them: one node for each operation of the framework."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""The version of the operators: the first with LayerNormalization."""


class Graph:
    """Builds a model, node by node. Each method returns the name of the value that it computes."""

    def __init__(self, seed=0):
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []
        self.random = np.random.default_rng(seed)

    def input(self, name, dtype, shape):
        """Adds an input. Sizes that are texts may differ from call to call."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value, shape):
        """Makes a value the output of the model."""
        self.node("Identity", [value], name="output")
        self.outputs.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, shape))

    def node(self, operator, inputs, name=None, **attributes):
        """Adds an operation with one output."""
        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, array):
        """Adds a weight or another constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def floats(self, *numbers):
        """Adds a scalar, or a list of numbers."""
        return self.constant(np.array(numbers[0] if len(numbers) == 1 else numbers, np.float32))

    def integers(self, *numbers):
        """Adds a list of integers, such as a shape."""
        return self.constant(np.array(numbers, np.int64))

    def uniform(self, shape, fan_in):
        """Makes a random weight with the distribution that linear layers start with."""
        bound = 1 / np.sqrt(fan_in)
        return self.random.uniform(-bound, bound, shape).astype(np.float32)

    def linear(self, x, weight, bias):
        """Multiplies with a weight `[inputs, outputs]`, and adds the bias."""
        return self.node("Add", [self.node("MatMul", [x, self.constant(weight)]), self.constant(bias)])

    def random_linear(self, x, inputs, outputs):
        """A linear layer with random weights."""
        return self.linear(x, self.uniform((inputs, outputs), inputs), self.uniform((outputs,), inputs))

    def gelu(self, x):
        """The exact GELU, in the operations that exporters write for opset 17."""
        erf = self.node("Erf", [self.node("Div", [x, self.floats(2**0.5)])])
        return self.node("Mul", [self.node("Mul", [x, self.node("Add", [erf, self.floats(1)])]), self.floats(0.5)])

    def layer_norm(self, x, weight, bias, epsilon):
        """A layer norm over the last dimension."""
        inputs = [x, self.constant(weight), self.constant(bias)]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=epsilon)

    def attention(self, query, key, value, heads, width, mask=None):
        """Attention with several heads over `[batch, length, width]`. The mask is added to the scores."""
        shape = self.integers(0, 0, heads, width // heads)

        def by_head(x, order):
            return self.node("Transpose", [self.node("Reshape", [x, shape])], perm=order)

        query, value = by_head(query, [0, 2, 1, 3]), by_head(value, [0, 2, 1, 3])
        key = by_head(key, [0, 2, 3, 1])
        scores = self.node("MatMul", [query, key])
        scores = self.node("Div", [scores, self.floats((width // heads) ** 0.5)])
        if mask is not None:
            scores = self.node("Add", [scores, mask])
        attended = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), value])
        attended = self.node("Transpose", [attended], perm=[0, 2, 1, 3])
        return self.node("Reshape", [attended, self.integers(0, 0, width)])

    def model(self):
        """Returns the checked model."""
        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        return model
