"""ONNX Runtime behind FastAPI, for the benchmark `serve`: `uvicorn peers.serve_onnx:app`.

`MINILM` is the folder of the model. Each process has a session of one thread, and computes each request as it comes.
"""

import os
from pathlib import Path

import fastapi
import numpy as np
import pydantic
import tokenizers

from . import sessions

FOLDER = Path(os.environ["MINILM"])
[session], _ = sessions.load("minilm", {"weights": str(FOLDER / "model.safetensors")}, "f32", 1)
tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
tokenizer.no_padding()

app = fastapi.FastAPI()


class Request(pydantic.BaseModel):
    """A sentence."""

    model: str
    input: str


@app.post("/embeddings")
async def embeddings(request: Request):
    """Embeds a sentence."""
    ids = np.array([tokenizer.encode(request.input).ids], np.int64)
    [vectors] = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    data = [{"object": "embedding", "index": 0, "embedding": vectors[0].tolist()}]
    return {"object": "list", "data": data, "model": request.model}
