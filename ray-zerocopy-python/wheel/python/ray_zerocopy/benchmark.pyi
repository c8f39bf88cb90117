from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, Literal

class Row:
    weights: Literal["own", "shared"]
    workers: int
    memory: int
    bare: int
    load: float
    call: tuple[float, float, float] | None
    calls_per_second: float | None
    def __init__(
        self,
        weights: Literal["own", "shared"],
        workers: int,
        memory: int,
        bare: int,
        load: float,
        call: tuple[float, float, float] | None,
        calls_per_second: float | None,
    ) -> None: ...

class Result:
    pipeline: str
    weights: int
    calls: int
    machine: str
    rows: list[Row]
    def __init__(self, pipeline: str, weights: int, calls: int, machine: str, rows: list[Row]) -> None: ...
    def to_json(self) -> str: ...
    def plot(self, path: str | PathLike[str]) -> None: ...

def measure(
    pipeline: Any, inputs: Any = None, *, workers: Iterable[int] = (1, 2, 4), calls: int = 20, method: str = "__call__"
) -> Result: ...
def main(arguments: Sequence[str] | None = None) -> None: ...
