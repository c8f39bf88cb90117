# Functions and classes that Ray calls in a worker. They delegate to Rust: `_run`, `_stream` and `_begin`.


def call(head, *rest):
    return _run(head, rest)


def call_stream(head, *rest):
    # Not `yield from`: Ray sends values to the generator, which an iterator does not take.
    for item in _stream(head, rest):
        yield item


def next_item(generator):
    """Returns the next object of a streaming generator, which has a last one that says so. For the driver."""
    import ray

    return ray.get(next(generator))


class Actor:
    def __init__(self, *order):
        # Ray keeps these arguments and passes them again when it restarts the actor.
        # A pipeline is loaded by a call.
        if order:
            _begin(order[0], order[1:])

    def call(self, head, *rest):
        return _run(head, rest)

    def call_stream(self, head, *rest):
        for item in _stream(head, rest):
            yield item

    def direct(self, message):
        return _run(message[0], message[1:])
