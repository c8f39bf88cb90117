"""The names of the Python predecessor, the distribution `ray-zerocopy` 0.2: its programs run with this package."""

import importlib.metadata

from ._wrappers import ActorWrapper, JITActorWrapper, JITTaskWrapper, TaskWrapper


def refuse_both():
    """Raises ImportError if the predecessor is installed too: both have a package of this name."""
    try:
        found = importlib.metadata.version("ray-zerocopy")
    except importlib.metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"the distributions `ray-zerocopy-burn` and `ray-zerocopy` {found} are both installed, and both have the package "
        f"`ray_zerocopy`: pip uninstall ray-zerocopy ray-zerocopy-burn, then install one of them"
    )


class ModelWrapper:
    """:class:`ActorWrapper` and :class:`TaskWrapper` under the name that they have in the predecessor.

    ``mode="actor"``: :meth:`load` returns the pipeline. ``mode="task"``: it returns a pipeline whose calls are Ray tasks.
    """

    _actor, _task = ActorWrapper, TaskWrapper

    def __init__(self, wrapper, mode="actor"):
        if mode not in ("actor", "task"):
            raise ValueError(f"mode should be 'actor' or 'task', found {mode!r}")
        self._wrapper = wrapper
        self._mode = mode

    @classmethod
    def from_model(cls, model_or_pipeline, mode="actor", model_attr_names=None, method_names=None):
        """Shares a model or a pipeline. All models are found, and all methods are forwarded: the last two are ignored."""
        kind = {"actor": cls._actor, "task": cls._task}.get(mode)
        if kind is None:
            raise ValueError(f"mode should be 'actor' or 'task', found {mode!r}")
        return cls(kind(model_or_pipeline), mode)

    @classmethod
    def for_tasks(cls, model_or_pipeline, method_names=None):
        """Returns the model or pipeline with calls that are Ray tasks."""
        return cls.from_model(model_or_pipeline, "task").load()

    def load(self, _use_fast_load=False):
        """Returns the pipeline."""
        return self._wrapper.load() if self._mode == "actor" else self._wrapper

    @property
    def model_refs(self):
        """Ray's reference to the weights, for each of their paths. The weights move into Ray's object store."""
        self._wrapper._weights.to_ray()
        return {path: self._wrapper._weights.reference for path, _ in self._wrapper.report().tensors}

    def serialize(self):
        """Returns the arguments of :meth:`deserialize`."""
        return {"skeleton": self._wrapper, "model_info": {}, "is_standalone_module": False, "mode": self._mode}

    @classmethod
    def deserialize(cls, skeleton, model_info=None, is_standalone_module=False, mode="actor"):
        """Returns the wrapper of :meth:`serialize`."""
        return cls(skeleton, mode)

    def __repr__(self):
        return f"<ray_zerocopy.{type(self).__name__} of {self._wrapper!r}, for {self._mode}s>"


class JITModelWrapper(ModelWrapper):
    """:class:`ModelWrapper` for TorchScript modules and pipelines that contain some."""

    _actor, _task = JITActorWrapper, JITTaskWrapper
