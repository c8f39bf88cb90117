"""Time of each kind of operation, as ONNX Runtime's own profiler measures it."""

import collections
import json
import os
from pathlib import Path


def of_profile(path, runs):
    """Reads a profile of `runs` calls. Returns the number and the microseconds of each kind of operation in a call.

    The first calls warm up, so the median of the calls is taken for each operation.
    """
    events = json.loads(Path(path).read_text())
    os.unlink(path)
    times = collections.defaultdict(list)
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[arguments["op_name"], event["name"]].append(event["dur"])
    kinds = collections.defaultdict(lambda: [0, 0.0])
    for (kind, _), durations in times.items():
        # An operation whose name is empty shares its events with others of its kind.
        count = max(1, len(durations) // runs)
        kinds[kind][0] += count
        kinds[kind][1] += count * sorted(durations)[len(durations) // 2]
    return [{"name": name, "count": count, "micros": micros} for name, (count, micros) in kinds.items()]
