"""Calls a server with Triton's clients: HTTP and gRPC, sync and async, JSON and binary, and errors.

Arguments: the addresses of HTTP and gRPC. The model `sum` returns, in each column, the sum of the row.
"""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

HTTP, GRPC = sys.argv[1:]
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
SUMS = np.repeat(ROWS.sum(axis=1, keepdims=True), 4, axis=1)


def inputs(module, rows=ROWS, name="x", **options):
    tensor = module.InferInput(name, list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, **options)
    return [tensor]


def refused(part, call):
    """Asserts that a call fails with an error that contains `part`."""
    try:
        call()
    except InferenceServerException as error:
        assert part in error.message(), f"expected {part!r}, found {error.message()!r}"
    else:
        raise AssertionError(f"expected an error with {part!r}")


def both(client, module):
    """What HTTP and gRPC have in common."""
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("sum")
    assert not client.is_model_ready("none")
    result = client.infer("sum", inputs(module), request_id="7")
    np.testing.assert_array_equal(result.as_numpy("y"), SUMS)
    wanted = [module.InferRequestedOutput("y")]
    result = client.infer("sum", inputs(module), outputs=wanted, model_version="1", timeout=5_000_000)
    np.testing.assert_array_equal(result.as_numpy("y"), SUMS)

    wide = np.ones((1, 5), dtype=np.float32)
    refused("the graph takes F32 of shape [batch, 4]", lambda: client.infer("sum", inputs(module, wide)))
    refused("input `z` is not one of", lambda: client.infer("sum", inputs(module, name="z")))
    refused("there is no model `none`", lambda: client.infer("none", inputs(module)))
    refused("version 9 of the model `sum`", lambda: client.infer("sum", inputs(module), model_version="9"))
    refused("no output `z`", lambda: client.infer("sum", inputs(module), outputs=[module.InferRequestedOutput("z")]))
    classes = [module.InferRequestedOutput("y", class_count=2)]
    refused("as classes", lambda: client.infer("sum", inputs(module), outputs=classes))
    refused("models with sequences", lambda: client.infer("sum", inputs(module), sequence_id=3))

    shared = module.InferInput("x", [3, 4], "FP32")
    shared.set_shared_memory("region", 48)
    refused("input `x` is in shared memory of the client", lambda: client.infer("sum", [shared]))
    refused("does not open shared memory", lambda: client.register_system_shared_memory("region", "/key", 48))
    refused("does not open shared memory", lambda: client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 48))

    refused("no file `none.rzg`", lambda: client.load_model("none"))
    refused("is not the name of a model", lambda: client.load_model("..secret"))
    client.load_model("other")
    client.unload_model("other")
    refused("it was unloaded", lambda: client.infer("other", inputs(module)))
    client.load_model("other")
    assert client.is_model_ready("other")


def over_http():
    client = http.InferenceServerClient(HTTP, concurrency=4)
    both(client, http)
    assert client.get_server_metadata()["name"] == "ray-zerocopy"
    metadata = client.get_model_metadata("sum")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], metadata
    states = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert states["sum"] == "READY", states
    # Every combination of JSON and binary.
    for binary_input in (False, True):
        for binary_output in (False, True):
            wanted = [http.InferRequestedOutput("y", binary_data=binary_output)]
            result = client.infer("sum", inputs(http, binary_data=binary_input), outputs=wanted)
            np.testing.assert_array_equal(result.as_numpy("y"), SUMS)
    pending = [client.async_infer("sum", inputs(http)) for _ in range(16)]
    for call in pending:
        np.testing.assert_array_equal(call.get_result().as_numpy("y"), SUMS)
    client.close()


def over_grpc():
    client = grpc.InferenceServerClient(GRPC)
    both(client, grpc)
    metadata = client.get_model_metadata("sum")
    assert (metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == ("FP32", [-1, 4])
    assert {model.name: model.state for model in client.get_model_repository_index().models}["sum"] == "READY"
    answers = queue.Queue()
    client.async_infer("sum", inputs(grpc), lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=60)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), SUMS)

    # A stream: the responses have the order of the requests, and an error does not end it.
    client.start_stream(lambda result, error: answers.put((result, error)))
    for factor in (1, 2, 3):
        client.async_stream_infer("sum", inputs(grpc, ROWS * factor))
    client.async_stream_infer("none", inputs(grpc))
    client.async_stream_infer("sum", inputs(grpc))
    for factor in (1, 2, 3, None, 1):
        result, error = answers.get(timeout=60)
        if factor is None:
            assert "there is no model `none`" in error.message()
        else:
            assert error is None, error
            np.testing.assert_array_equal(result.as_numpy("y"), SUMS * factor)
    client.stop_stream()
    large = np.ones((100_000, 4), dtype=np.float32)
    assert client.infer("sum", inputs(grpc, large)).as_numpy("y").shape == large.shape
    client.close()


async def asynchronous():
    async with http_aio.InferenceServerClient(HTTP) as client:
        results = await asyncio.gather(*(client.infer("sum", inputs(http)) for _ in range(16)))
        assert all((result.as_numpy("y") == SUMS).all() for result in results)
    async with grpc_aio.InferenceServerClient(GRPC) as client:
        results = await asyncio.gather(*(client.infer("sum", inputs(grpc)) for _ in range(16)))
        assert all((result.as_numpy("y") == SUMS).all() for result in results)


over_http()
over_grpc()
asyncio.run(asynchronous())
print("done")
