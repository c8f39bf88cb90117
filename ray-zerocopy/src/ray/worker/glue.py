# What Ray runs in a worker. Everything that matters is in Rust: `_run` and `_begin`.


def call(head, *rest):
    return _run(head, rest)


class Actor:
    def __init__(self, *order):
        # What an actor is begun with has to be kept for when it is begun anew. A pipeline is loaded by a call.
        if order:
            _begin(order[0], order[1:])

    def call(self, head, *rest):
        return _run(head, rest)

    def direct(self, message):
        return _run(message[0], message[1:])
