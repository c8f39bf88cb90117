"""One copy of a model's weights per machine, however many worker processes use it.

A pipeline is any Python object with :class:`torch.nn.Module` objects at any depth. A wrapper of it is small
and can be sent to other processes. They read the weights in place: from Ray's object store on a cluster, and
from sealed memory without Ray.

>>> wrapped = TaskWrapper(pipeline)                                  # doctest: +SKIP
>>> result = wrapped(data)                                           # in a worker
>>> actor_wrapper = ActorWrapper(pipeline)                           # doctest: +SKIP
>>> pipeline = actor_wrapper.load()                                  # in any other process

Traced graphs of Rust pipelines, files ``model.rzg`` that the crate ``ray-zerocopy`` writes, run without
PyTorch:

>>> graph = Graph("model.rzg")                                       # doctest: +SKIP
>>> graph(rows=numpy.ones((3, 8), "float32"))["output"].shape        # doctest: +SKIP
(3, 4)
"""

from . import _libtorch, _predecessor

_predecessor.refuse_both()
_libtorch.before()
try:
    from ._native import __libtorch__, __version__
except ImportError as error:
    _libtorch.load(error)
    from ._native import __libtorch__, __version__
_libtorch.after(__libtorch__)

from ._graphs import Batches, Graph, JitActorWrapper, JitTaskWrapper
from ._pool import WorkerError
from ._predecessor import JITModelWrapper, ModelWrapper
from ._report import Report
from ._wrappers import ActorWrapper, JITActorWrapper, JITTaskWrapper, TaskWrapper

__all__ = [
    "ActorWrapper",
    "Batches",
    "Graph",
    "JITActorWrapper",
    "JITModelWrapper",
    "JITTaskWrapper",
    "JitActorWrapper",
    "JitTaskWrapper",
    "ModelWrapper",
    "Report",
    "TaskWrapper",
    "WorkerError",
]
