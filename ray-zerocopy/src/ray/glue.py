# What Ray runs in a worker. Everything that matters is in Rust: `_run` and `_State`.


def call(head, *rest):
    return _run(head, rest)


class Actor:
    def __init__(self, head, *rest):
        self._state = _State(head, rest)

    def call(self, head, *rest):
        return self._state.call(head, rest)

    def channel(self, message):
        return self._state.call(message[0], message[1:])
