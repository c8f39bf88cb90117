"""The pages of an arena in this process, mapped privately.

Storages of PyTorch are writable, and code may write to them: an optimiser, ``add_``, the running statistics
of a norm. So each process has a private mapping (``MAP_PRIVATE``) of the arena. A page that is written to
becomes a copy of this process, which the kernel makes. The arena and other processes never change.
"""

import ctypes
import mmap
import os

# Private mappings of large files need no reserve of memory, since most pages are never written to.
_FLAGS = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000)
_PAGE = mmap.PAGESIZE


class _Map(mmap.mmap):
    # Keeps the arena, which pins its object in Ray's store.
    __slots__ = ("arena",)


class Pages:
    """Buffers of the parts of an arena, backed by its pages."""

    def __init__(self, arena):
        self._arena = arena
        # Where the container begins in the file that is mapped.
        self._file, self._start = _source(arena)
        self._maps = []

    @property
    def is_private(self):
        """Whether writes stay in this process. Otherwise they end it: the pages are protected."""
        return self._file is not None

    def buffer(self, offset, size, rank):
        """Returns a writable buffer, and the offset of a part in it.

        Parts with equal bytes have the same offset in the arena, and another rank each: each has pages of its own.
        """
        if self._file is None:
            buffer = (ctypes.c_char * size).from_address(self._arena.address + offset)
            buffer.arena = self._arena
            return buffer, 0
        while len(self._maps) <= rank:
            self._maps.append(self._map())
        return self._maps[rank], self._start % _PAGE + offset

    def _map(self):
        start = self._start - self._start % _PAGE
        size = self._start - start + self._arena.size
        try:
            found = _Map(self._file.fileno(), size, _FLAGS, mmap.PROT_READ | mmap.PROT_WRITE, offset=start)
        except OSError as error:
            raise MemoryError(f"the {size} bytes of the weights cannot be mapped privately: {error}") from error
        found.arena = self._arena
        return found

    def close(self):
        """Closes the file. Mappings stay."""
        if self._file is not None:
            self._file.close()


def _source(arena):
    # The file of an arena, open for reading, and the offset of the container in it.
    if arena.fd is not None:
        return os.fdopen(os.dup(arena.fd), "rb", buffering=0), 0
    return _in_store(arena)


def _in_store(arena):
    # Ray maps its store shared, and closes the descriptor. The raylet, which is the parent of a worker, has it
    # open. Returns None if it cannot be opened, for example because it belongs to another user.
    found = _mapping(arena.address)
    if found is None:
        return None, 0
    inode, offset = found
    for pid in _raylets():
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            path = f"/proc/{pid}/fd/{number}"
            try:
                if os.stat(path).st_ino != inode or not os.readlink(path).startswith("/"):
                    continue
                file = open(path, "rb", buffering=0)
            except OSError:
                continue
            if _is_same(file, offset, arena):
                return file, offset
            file.close()
    return None, 0


def _mapping(address):
    # The inode of the mapping at an address, and the offset of the address in the file.
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, offset, _, inode, *_ = line.split()
            start, end = (int(each, 16) for each in span.split("-"))
            if start <= address < end:
                return int(inode), int(offset, 16) + address - start
    return None


def _raylets():
    yield os.getppid()
    for pid in os.listdir("/proc"):
        if pid.isdecimal():
            try:
                with open(f"/proc/{pid}/comm") as comm:
                    if comm.read().strip() == "raylet":
                        yield int(pid)
            except OSError:
                pass


def _is_same(file, offset, arena):
    # The head of the container has its checksum, so equal heads mean equal containers.
    size = min(arena.size, 1 << 16)
    return os.pread(file.fileno(), size, offset) == ctypes.string_at(arena.address, size)
