# Functions and classes that Ray calls in a worker. They delegate to Rust: `_run` and `_begin`.


def call(head, *rest):
    return _run(head, rest)


class Actor:
    def __init__(self, *order):
        # Ray keeps these arguments and passes them again when it restarts the actor.
        # A pipeline is loaded by a call.
        if order:
            _begin(order[0], order[1:])

    def call(self, head, *rest):
        return _run(head, rest)

    def direct(self, message):
        return _run(message[0], message[1:])
