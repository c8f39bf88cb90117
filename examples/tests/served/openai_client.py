"""Embeds sentences with OpenAI's client, and compares them with the reference.

Arguments: the URL of the server, and the file with the reference.
"""

import asyncio
import json
import math
import sys

import openai

URL, REFERENCE = sys.argv[1:]
with open(REFERENCE) as file:
    SENTENCES = json.load(file)["sentences"]
TEXTS = [sentence["text"] for sentence in SENTENCES]


def check(vector, sentence):
    difference = max(abs(a - b) for a, b in zip(vector, sentence["embedding"], strict=True))
    assert difference < 1e-3, (sentence["text"], difference)


client = openai.OpenAI(base_url=URL, api_key="sk-test", max_retries=0)
assert [model.id for model in client.models.list()] == ["minilm"]
# The client asks for base64 by default.
for options in ({}, {"encoding_format": "float"}):
    response = client.embeddings.create(model="minilm", input=TEXTS, **options)
    assert response.usage.total_tokens > len(TEXTS)
    for item, sentence in zip(response.data, SENTENCES, strict=True):
        check(item.embedding, sentence)
one = client.embeddings.create(model="minilm", input=TEXTS[0]).data[0].embedding
check(one, SENTENCES[0])
assert math.isclose(sum(x * x for x in one), 1.0, rel_tol=1e-3)

# More texts than one call takes.
many = client.embeddings.create(model="minilm", input=["a sentence"] * 100)
assert [item.index for item in many.data] == list(range(100))


def refused(kind, part, call):
    try:
        call()
    except kind as error:
        assert part in str(error), error
    else:
        raise AssertionError(f"expected {kind.__name__}")


refused(openai.NotFoundError, "there is no model `none`", lambda: client.embeddings.create(model="none", input="x"))
refused(openai.BadRequestError, "expected 1 to 2048", lambda: client.embeddings.create(model="minilm", input=[]))
refused(openai.BadRequestError, "lists of tokens", lambda: client.embeddings.create(model="minilm", input=[1, 2]))
refused(openai.BadRequestError, "`dimensions` is 7", lambda: client.embeddings.create(model="minilm", input="x", dimensions=7))
wrong = openai.OpenAI(base_url=URL, api_key="wrong", max_retries=0)
refused(openai.AuthenticationError, "not one of this server's", lambda: wrong.models.list())


async def side_by_side():
    client = openai.AsyncOpenAI(base_url=URL, api_key="sk-test")
    calls = (client.embeddings.create(model="minilm", input=text) for text in TEXTS)
    for response, sentence in zip(await asyncio.gather(*calls), SENTENCES):
        check(response.data[0].embedding, sentence)


asyncio.run(side_by_side())
print("done")
