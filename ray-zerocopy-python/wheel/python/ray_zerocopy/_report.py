"""Reports: what is shared, and which processes map it."""


class Report:
    """The weights of a pipeline, and the processes of this machine that map them.

    ``tensors`` has the path and size of each storage, ``stored_bytes`` the size of all where equal ones count once,
    ``copied_bytes`` the size of what each process has for itself, and ``processes`` a row for each process, with
    ``pid``, ``shared``, ``private`` and ``pss`` in bytes. ``str(report)`` is a table.
    """

    def __init__(self, weights):
        arena = weights.arena()
        self.pipeline = weights.origin
        self.arena = weights.id
        self.place = "Ray's object store" if weights.reference is not None else "sealed memory"
        self.tensors = [(path, size) for path, _, size in arena.tensors()]
        self.bytes = sum(size for _, size in self.tensors)
        self.stored_bytes = arena.stored_bytes
        self.copied_bytes = len(memoryview(arena.value("skeleton")))
        self._table, self.processes = arena.report()

    def __str__(self):
        lines = [
            f"{self.pipeline}: arena {self.arena[:12]} in {self.place}",
            f"{len(self.tensors)} storages of {_mib(self.bytes)} MiB, stored in {_mib(self.stored_bytes)} MiB; "
            f"each process has {self.copied_bytes / 1024:.1f} KiB of its own",
            *(f"  {_mib(size):>9} MiB  {path}" for path, size in sorted(self.tensors, key=lambda each: -each[1])[:10]),
        ]
        if len(self.tensors) > 10:
            lines.append(f"  and {len(self.tensors) - 10} smaller ones")
        return "\n".join([*lines, self._table.rstrip()])


def _mib(size):
    return f"{size / (1 << 20):.1f}"
