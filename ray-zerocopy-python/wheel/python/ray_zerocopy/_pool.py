"""The engine without Ray: calls run in processes of this machine, which are started by spawn."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref

from . import _messages, _worker

_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[3]); import importlib; importlib.import_module(sys.argv[4]).main(*map(int, sys.argv[1:3]))"
# Time that a worker has to end before it is killed.
_PATIENCE = 5


class WorkerError(RuntimeError):
    """A worker process has ended during a call. The next call gets a new one."""


class _RemoteError(Exception):
    # The traceback of a worker, as the cause of the exception that it raised.
    def __init__(self, text):
        super().__init__(f"in a worker\n\n{text}")


class Process:
    """A process that serves requests: it runs ``main`` of a module of this package."""

    def __init__(self, module, threads):
        own, other = socket.socketpair()
        self.connection = own
        with other:
            flags = subprocess._args_from_interpreter_flags()
            paths = json.dumps([os.path.abspath(each) for each in sys.path])
            command = [sys.executable, *flags, "-c", _CODE, str(other.fileno()), str(threads), paths, module]
            self.process = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)

    def run(self, request):
        """Sends a request, and returns the answer."""
        self.send(request)
        return self.receive()

    def send(self, request):
        """Sends a request that has been encoded."""
        try:
            _messages.send(self.connection, request)
        except ConnectionError:
            self._raise()

    def receive(self):
        """Returns the answer to the request."""
        try:
            answer = _messages.receive(self.connection)
        except (ConnectionError, EOFError):
            answer = None
        if answer is None:
            self._raise()
        return answer

    def _raise(self):
        raise WorkerError(f"worker {self.process.pid} {self._end()} during a call") from None

    def _end(self):
        self.connection.close()
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was ended by {signal.Signals(-code).name}"

    def close(self):
        """Closes the connection, which ends the process after its call."""
        self.connection.close()

    def wait(self):
        """Waits for the end of the process, and kills it if that takes long."""
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Pool:
    # The workers of one wrapper. They are started when all others are busy, up to a limit.

    def __init__(self, limit):
        self.pid = os.getpid()
        self.limit = limit
        self._threads = max(1, cpus() // limit)
        self._condition = threading.Condition(threading.Lock())
        self._idle = []
        self.all = set()
        self._starting = 0
        self.executor = concurrent.futures.ThreadPoolExecutor(limit, thread_name_prefix="ray-zerocopy call")

    def run(self, request):
        worker = self._take()
        try:
            answer = worker.run(request)
        except BaseException:
            # It may still compute, and would answer the next call with the result of this one.
            self._discard(worker)
            raise
        with self._condition:
            self._idle.append(worker)
            self._condition.notify()
        return answer

    def _take(self):
        with self._condition:
            while True:
                if self._idle:
                    worker = self._idle.pop()
                    # One that was killed meanwhile is not given a call.
                    if worker.process.poll() is None:
                        return worker
                    worker.close()
                    self.all.discard(worker)
                elif len(self.all) + self._starting < self.limit:
                    self._starting += 1
                    break
                else:
                    self._condition.wait()
        worker = None
        try:
            worker = Process(_worker.__name__, self._threads)
            return worker
        finally:
            with self._condition:
                self._starting -= 1
                if worker is not None:
                    self.all.add(worker)
                self._condition.notify()

    def _discard(self, worker):
        worker.close()
        worker.process.kill()
        worker.process.wait()
        with self._condition:
            self.all.discard(worker)
            self._condition.notify()

    def close(self):
        self.executor.shutdown(wait=True, cancel_futures=True)
        with self._condition:
            workers, self.all, self._idle = list(self.all), set(), []
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.wait()


class LocalTasks:
    """Runs calls in worker processes of this machine."""

    is_local = True

    def __init__(self, workers=None):
        if workers is not None and workers < 1:
            raise ValueError(f"workers should be at least 1, found {workers}")
        self._limit = workers or cpus()
        self._lock = threading.Lock()
        self._pool = None
        self._finalizer = None

    def connect(self):
        """Does nothing: workers are started as they are needed."""

    def with_options(self, options):
        """Refuses options, which are Ray's."""
        raise TypeError(f"{', '.join(options) or 'options()'}: options of Ray, and the calls run in processes of this machine")

    def start(self, wrapper, method, args, kwargs):
        """Starts a call. Returns a future."""
        request = self._request(wrapper, method, args, kwargs)
        pool = self._running()
        return pool.executor.submit(lambda: result(pool.run(request)))

    def call(self, wrapper, method, args, kwargs):
        """Runs a call, and returns its result."""
        return result(self._running().run(self._request(wrapper, method, args, kwargs)))

    def pids(self):
        """The ids of the worker processes."""
        pool = self._pool
        return [] if pool is None else sorted(worker.process.pid for worker in pool.all)

    def close(self):
        """Ends the workers after their calls."""
        with self._lock:
            pool, self._pool = self._pool, None
            if self._finalizer is not None:
                self._finalizer.detach()
        if pool is not None and pool.pid == os.getpid():
            pool.close()

    def _request(self, wrapper, method, args, kwargs):
        weights = wrapper._weights
        arena = weights.id, weights.origin, weights._owner
        # Workers get the arena from this process, which has made or received it.
        if weights.arena().fd is None:
            raise RuntimeError(
                f"the weights of {weights.origin} are in Ray's object store, where the worker processes of engine='local' "
                f"cannot read them: make the TaskWrapper in this process"
            )
        return _messages.encode((arena, wrapper._device, wrapper._strict, method, args, kwargs))

    def _running(self):
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool
                if pool is None:
                    pool = self._pool = _Pool(self._limit)
                    self._finalizer = weakref.finalize(self, _Pool.close, pool)
        if pool.pid != os.getpid():
            raise RuntimeError(
                f"process {os.getpid()} is a fork of process {pool.pid}, whose workers it cannot use: start it with "
                f"multiprocessing's `spawn` and send it the wrapper, or make the first call after the fork"
            )
        return pool

    def __reduce__(self):
        return LocalTasks, (self._limit,)


def result(answer):
    """Returns the result in an answer, or raises its exception."""
    is_result, value, trace = answer
    if is_result:
        return value
    value.__cause__ = _RemoteError(trace)
    raise value


def cpus():
    """The number of processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))
