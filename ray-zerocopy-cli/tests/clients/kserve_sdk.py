"""Calls a server with KServe's SDK over HTTP and gRPC, and reads its metrics with the parser of Prometheus' client.

Arguments: the addresses of HTTP and gRPC. The model `sum` returns, in each column, the sum of the row.
"""

import asyncio
import sys
import urllib.request

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from prometheus_client.parser import text_string_to_metric_families

HTTP, GRPC = sys.argv[1:]
URL = f"http://{HTTP}"
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
SUMS = np.repeat(ROWS.sum(axis=1, keepdims=True), 4, axis=1)


def request(binary, model="sum", rows=ROWS):
    tensor = InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model, [tensor], request_id="7")


async def over_http():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    assert await client.is_server_live(URL) and await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, "sum")
    for binary in (False, True):
        response = await client.infer(URL, request(binary), model_name="sum")
        assert (response.id, response.model_name) == ("7", "sum")
        np.testing.assert_array_equal(response.outputs[0].as_numpy().reshape(SUMS.shape), SUMS)
    try:
        await client.infer(URL, request(False, rows=np.ones((1, 5), dtype=np.float32)), model_name="sum")
    except Exception as error:
        assert "400" in str(error), error
    else:
        raise AssertionError("a row of 5 is an error")
    await client.close()


async def over_grpc():
    client = InferenceGRPCClient(GRPC, retries=2)
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready("sum")
    for binary in (False, True):
        response = await client.infer(request(binary))
        np.testing.assert_array_equal(response.outputs[0].as_numpy().reshape(SUMS.shape), SUMS)
    try:
        await client.infer(request(False, model="none"))
    except Exception as error:
        assert "there is no model `none`" in str(error), error
    else:
        raise AssertionError("an unknown model is an error")
    await client.close()


def metrics():
    """The metrics by name, as Prometheus reads them."""
    text = urllib.request.urlopen(f"{URL}/metrics", timeout=60).read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def outcomes():
    found = {}
    family = metrics().get("ray_zerocopy_calls")
    for sample in family.samples if family else []:
        outcome = sample.labels["outcome"]
        found[outcome] = found.get(outcome, 0) + sample.value
    return found


asyncio.run(over_http())
asyncio.run(over_grpc())
families = metrics()
assert families["ray_zerocopy_calls"].type == "counter", families
assert families["ray_zerocopy_calls"].documentation
assert families["ray_zerocopy_call_seconds"].type == "histogram", families["ray_zerocopy_call_seconds"].type
assert families["ray_zerocopy_arena_bytes"].type == "gauge"
# Four calls have succeeded. The two that were refused never reached a worker, or were refused by the graph.
assert outcomes().get("ok") == 4, outcomes()
print("done")
