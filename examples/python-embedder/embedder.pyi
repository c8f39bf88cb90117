# Made by `stubs()` of the module itself: do not edit.
from collections.abc import Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from ray import ObjectRef

@final
class Embedder:
    """all-MiniLM-L6-v2: sentences in, unit vectors out."""
    @classmethod
    def open(cls, folder: str | PathLike[str] | None = None) -> Embedder: ...
    def embed(self, texts: Sequence[str]) -> NDArray[np.floating[Any]]:
        """One unit vector a text, in the order of `texts`.

        >>> import embedder
        >>> vectors = embedder.Embedder.open().embed(["How do trains stop?", "Bread rises."])
        >>> vectors.shape
        (2, 384)
        >>> round(float(vectors[0] @ vectors[0]), 3)
        1.0"""

def traffic(pipeline: Embedder) -> dict[str, int]: ...

def copied(pipeline: Embedder) -> int: ...

class ActorWrapper:
    def __init__(
        self, pipeline: Embedder, device: str = "cpu", *, strict: bool = False, spill: bool = False
    ) -> None: ...
    def load(self, device: str | None = None) -> Embedder: ...

@final
class _Task_embed:
    def __call__(self, texts: Sequence[str] | ObjectRef[Sequence[str]]) -> NDArray[np.floating[Any]]: ...
    def remote(self, texts: Sequence[str] | ObjectRef[Sequence[str]]) -> ObjectRef[NDArray[np.floating[Any]]]: ...

class TaskWrapper:
    def __init__(
        self,
        pipeline: Embedder,
        device: str = "cpu",
        *,
        strict: bool = False,
        spill: bool = False,
        **options: Any,
    ) -> None: ...
    def load(self, device: str | None = None) -> Embedder: ...
    def options(self, **options: Any) -> TaskWrapper: ...
    @property
    def embed(self) -> _Task_embed: ...

class PanicError(RuntimeError):
    """A method panicked, in Rust. The process lives on."""
    method: str
    message: str
    pid: int
    host: str

class PipelineError(RuntimeError):
    """A method or a constructor gave an error, a ``Result::Err`` in Rust."""
    error: Any

def stubs() -> str: ...
