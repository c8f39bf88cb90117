"""gunicorn: a process that keeps the weights, and workers that load them.

gunicorn forks its workers, and a process that computes with PyTorch cannot be forked. So the process that starts first does
not import PyTorch: it starts one that shares the pipeline, and passes the wrapper on as text. For the same reason `preload_app`
stays off.
"""

import keeper

bind = "127.0.0.1:8000"
workers = 2
worker_class = "asgi"


def on_starting(server):
    """Runs before the workers are forked."""
    server.keeper = keeper.start()


def on_exit(server):
    """Runs when gunicorn ends."""
    server.keeper.end()
