# Made by `stubs()` of the module itself: do not edit.
from collections.abc import Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from ray import ObjectRef

@final
class Probe:
    """A small model.

    It is for tests."""
    def __init__(self, width: int) -> None: ...
    @classmethod
    def checked(cls, width: int, limit: int | None = None) -> Probe: ...
    def call(self, rows: ArrayLike) -> NDArray[np.floating[Any]]:
        """Scores of each row.

        >>> import numpy, probe
        >>> probe.Probe(width=3).call(numpy.ones((4, 3), "float32")).shape
        (4, 2)"""
    def __call__(self, rows: ArrayLike) -> NDArray[np.floating[Any]]: ...
    def same1(self, x: ArrayLike) -> NDArray[np.floating[Any]]:
        """What came in."""
    def same2(self, x: ArrayLike) -> NDArray[np.floating[Any]]:
        """What came in."""
    def int2(self, x: ArrayLike) -> NDArray[np.integer[Any]]:
        """What came in."""
    def bool1(self, x: ArrayLike) -> NDArray[np.bool_]:
        """What came in."""
    def bf16(self, x: ArrayLike) -> NDArray[np.floating[Any]]:
        """The same in bfloat16."""
    def containers(self, list: Sequence[ArrayLike], map: dict[str, ArrayLike], pair: tuple[ArrayLike, ArrayLike], maybe: ArrayLike | None = None) -> tuple[list[NDArray[np.floating[Any]]], dict[str, NDArray[np.integer[Any]]], NDArray[np.floating[Any]] | None]:
        """What came in."""
    def query(self, query: Any) -> Any:
        """What came in."""
    def texts(self, texts: Sequence[str]) -> list[str]:
        """What came in."""
    def values(self, x: float, n: int, flag: bool, name: str | None = None) -> tuple[float, int, bool, str | None]:
        """What came in."""
    def bytes(self, data: Sequence[int] | bytes) -> list[int]:
        """What came in."""
    def words(self, lambda_: int, name: int) -> int:
        """A parameter that is a word of Python's, and one of this crate's."""
    def half(self, n: int) -> int:
        """Half of an even number."""
    def ones(self, n: int) -> NDArray[np.floating[Any]]:
        """Ones, or an error that is no text."""
    def weights(self) -> NDArray[np.floating[Any]]:
        """The weights, which are the pipeline's own memory."""
    def count(self) -> int:
        """How often it has been called."""
    def keep(self, x: ArrayLike) -> None:
        """Keeps an array."""
    def kept(self) -> NDArray[np.floating[Any]] | None:
        """What was kept."""
    def clash(self, reason: str) -> None:
        """Panics."""
    def spoil(self) -> None:
        """Panics half way."""
    def pid(self) -> int:
        """The process that it runs in."""
    def die(self) -> None:
        """Ends the process."""

def traffic(pipeline: Probe) -> dict[str, int]: ...

def copied(pipeline: Probe) -> int: ...

class ActorWrapper:
    def __init__(
        self, pipeline: Probe, device: str = "cpu", *, strict: bool = False, spill: bool = False
    ) -> None: ...
    def load(self, device: str | None = None) -> Probe: ...

@final
class _Task_call:
    def __call__(self, rows: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.floating[Any]]: ...
    def remote(self, rows: ArrayLike | ObjectRef[ArrayLike]) -> ObjectRef[NDArray[np.floating[Any]]]: ...

@final
class _Task_same1:
    def __call__(self, x: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.floating[Any]]: ...
    def remote(self, x: ArrayLike | ObjectRef[ArrayLike]) -> ObjectRef[NDArray[np.floating[Any]]]: ...

@final
class _Task_same2:
    def __call__(self, x: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.floating[Any]]: ...
    def remote(self, x: ArrayLike | ObjectRef[ArrayLike]) -> ObjectRef[NDArray[np.floating[Any]]]: ...

@final
class _Task_int2:
    def __call__(self, x: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.integer[Any]]: ...
    def remote(self, x: ArrayLike | ObjectRef[ArrayLike]) -> ObjectRef[NDArray[np.integer[Any]]]: ...

@final
class _Task_bool1:
    def __call__(self, x: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.bool_]: ...
    def remote(self, x: ArrayLike | ObjectRef[ArrayLike]) -> ObjectRef[NDArray[np.bool_]]: ...

@final
class _Task_bf16:
    def __call__(self, x: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.floating[Any]]: ...
    def remote(self, x: ArrayLike | ObjectRef[ArrayLike]) -> ObjectRef[NDArray[np.floating[Any]]]: ...

@final
class _Task_containers:
    def __call__(self, list: Sequence[ArrayLike] | ObjectRef[Sequence[ArrayLike]], map: dict[str, ArrayLike] | ObjectRef[dict[str, ArrayLike]], pair: tuple[ArrayLike, ArrayLike] | ObjectRef[tuple[ArrayLike, ArrayLike]], maybe: ArrayLike | None | ObjectRef[ArrayLike | None] = None) -> tuple[list[NDArray[np.floating[Any]]], dict[str, NDArray[np.integer[Any]]], NDArray[np.floating[Any]] | None]: ...
    def remote(self, list: Sequence[ArrayLike] | ObjectRef[Sequence[ArrayLike]], map: dict[str, ArrayLike] | ObjectRef[dict[str, ArrayLike]], pair: tuple[ArrayLike, ArrayLike] | ObjectRef[tuple[ArrayLike, ArrayLike]], maybe: ArrayLike | None | ObjectRef[ArrayLike | None] = None) -> ObjectRef[tuple[list[NDArray[np.floating[Any]]], dict[str, NDArray[np.integer[Any]]], NDArray[np.floating[Any]] | None]]: ...

@final
class _Task_query:
    def __call__(self, query: Any | ObjectRef[Any]) -> Any: ...
    def remote(self, query: Any | ObjectRef[Any]) -> ObjectRef[Any]: ...

@final
class _Task_texts:
    def __call__(self, texts: Sequence[str] | ObjectRef[Sequence[str]]) -> list[str]: ...
    def remote(self, texts: Sequence[str] | ObjectRef[Sequence[str]]) -> ObjectRef[list[str]]: ...

@final
class _Task_values:
    def __call__(self, x: float | ObjectRef[float], n: int | ObjectRef[int], flag: bool | ObjectRef[bool], name: str | None | ObjectRef[str | None] = None) -> tuple[float, int, bool, str | None]: ...
    def remote(self, x: float | ObjectRef[float], n: int | ObjectRef[int], flag: bool | ObjectRef[bool], name: str | None | ObjectRef[str | None] = None) -> ObjectRef[tuple[float, int, bool, str | None]]: ...

@final
class _Task_bytes:
    def __call__(self, data: Sequence[int] | bytes | ObjectRef[Sequence[int] | bytes]) -> list[int]: ...
    def remote(self, data: Sequence[int] | bytes | ObjectRef[Sequence[int] | bytes]) -> ObjectRef[list[int]]: ...

@final
class _Task_words:
    def __call__(self, lambda_: int | ObjectRef[int], name: int | ObjectRef[int]) -> int: ...
    def remote(self, lambda_: int | ObjectRef[int], name: int | ObjectRef[int]) -> ObjectRef[int]: ...

@final
class _Task_half:
    def __call__(self, n: int | ObjectRef[int]) -> int: ...
    def remote(self, n: int | ObjectRef[int]) -> ObjectRef[int]: ...

@final
class _Task_ones:
    def __call__(self, n: int | ObjectRef[int]) -> NDArray[np.floating[Any]]: ...
    def remote(self, n: int | ObjectRef[int]) -> ObjectRef[NDArray[np.floating[Any]]]: ...

@final
class _Task_weights:
    def __call__(self) -> NDArray[np.floating[Any]]: ...
    def remote(self) -> ObjectRef[NDArray[np.floating[Any]]]: ...

@final
class _Task_kept:
    def __call__(self) -> NDArray[np.floating[Any]] | None: ...
    def remote(self) -> ObjectRef[NDArray[np.floating[Any]] | None]: ...

@final
class _Task_clash:
    def __call__(self, reason: str | ObjectRef[str]) -> None: ...
    def remote(self, reason: str | ObjectRef[str]) -> ObjectRef[None]: ...

@final
class _Task_pid:
    def __call__(self) -> int: ...
    def remote(self) -> ObjectRef[int]: ...

@final
class _Task_die:
    def __call__(self) -> None: ...
    def remote(self) -> ObjectRef[None]: ...

class TaskWrapper:
    def __init__(
        self,
        pipeline: Probe,
        device: str = "cpu",
        *,
        strict: bool = False,
        spill: bool = False,
        **options: Any,
    ) -> None: ...
    def load(self, device: str | None = None) -> Probe: ...
    def options(self, **options: Any) -> TaskWrapper: ...
    @property
    def call(self) -> _Task_call: ...
    def __call__(self, rows: ArrayLike | ObjectRef[ArrayLike]) -> NDArray[np.floating[Any]]: ...
    @property
    def same1(self) -> _Task_same1: ...
    @property
    def same2(self) -> _Task_same2: ...
    @property
    def int2(self) -> _Task_int2: ...
    @property
    def bool1(self) -> _Task_bool1: ...
    @property
    def bf16(self) -> _Task_bf16: ...
    @property
    def containers(self) -> _Task_containers: ...
    @property
    def query(self) -> _Task_query: ...
    @property
    def texts(self) -> _Task_texts: ...
    @property
    def values(self) -> _Task_values: ...
    @property
    def bytes(self) -> _Task_bytes: ...
    @property
    def words(self) -> _Task_words: ...
    @property
    def half(self) -> _Task_half: ...
    @property
    def ones(self) -> _Task_ones: ...
    @property
    def weights(self) -> _Task_weights: ...
    @property
    def kept(self) -> _Task_kept: ...
    @property
    def clash(self) -> _Task_clash: ...
    @property
    def pid(self) -> _Task_pid: ...
    @property
    def die(self) -> _Task_die: ...

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
