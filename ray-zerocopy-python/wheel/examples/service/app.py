"""The web service: `gunicorn app:app` in this folder, which reads `gunicorn.conf.py`."""

import contextlib
import os

import fastapi
import keeper
import pydantic


class Rows(pydantic.BaseModel):
    """The body of a request."""

    rows: list[tuple[float, float, float, float]]


@contextlib.asynccontextmanager
async def lifespan(app):
    """Loads the pipeline when a worker starts: milliseconds, and no memory for the weights."""
    wrapper = keeper.wrapper()
    app.state.wrapper, app.state.classify = wrapper, wrapper.load()
    yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/classify")
def classify(body: Rows):
    """Classifies rows."""
    return {"classes": app.state.classify(body.rows), "pid": os.getpid()}


@app.get("/processes")
def processes():
    """Returns the processes that map the weights."""
    return [row["pid"] for row in app.state.wrapper.report().processes]
