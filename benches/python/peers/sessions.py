"""Sessions of ONNX Runtime: models that are quantised, optimised and loaded as its users do."""

import collections
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from . import minilm, random_models

KINDS = {
    "minilm": minilm.build,
    "stack": random_models.stack,
    "blocks": random_models.blocks,
    "resnet18": random_models.resnet18,
    "detector": random_models.detector,
}


def load(kind, arguments, precision, threads, copies=1, profile=None):
    """Loads `copies` sessions of a model in `f32`, or with weights that were quantised to `int8`.

    With `profile`, they measure their operations, and write files whose names begin so. Returns them, and how many operations of each kind they run after all optimisations of ONNX Runtime.

    The graph comes as an exporter writes it. For MiniLM, the offline fusions of `onnxruntime.transformers.optimizer`
    (`Attention`, `SkipLayerNormalization`) were tried, alone and together. They compute the same, and on a CPU they are
    5 to 12 % slower than the session's own optimisations, in f32 and in int8. So they are not used.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, optimised = Path(folder, "model.onnx"), Path(folder, "optimised.onnx")
        onnx.save(KINDS[kind](**arguments), path)
        if precision == "int8":
            quantised = Path(folder, "quantised.onnx")
            quantize_dynamic(path, quantised, per_channel=True, weight_type=QuantType.QInt8)
            path = quantised
        sessions = []
        for copy in range(copies):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            # Errors only: a warning says that the optimised model is for this processor.
            options.log_severity_level = 3
            if profile is not None:
                options.enable_profiling, options.profile_file_prefix = True, profile
            if copy == 0:
                options.optimized_model_filepath = str(optimised)
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
        nodes = onnx.load(optimised, load_external_data=False).graph.node
        return sessions, dict(collections.Counter(node.op_type for node in nodes).most_common())
