"""Submitted by test_gpu.py: tasks hold the GPU they got until so many of them have started, and say which and when."""

import json
import sys
import time
from pathlib import Path

from pyspark import SparkContext, TaskContext

from avrec_spark import device


def hold(task, folder, together):
    start = time.monotonic()
    (folder / f"started-{task}").touch()
    while len(list(folder.glob("started-*"))) < together:
        if time.monotonic() > start + 60:
            raise TimeoutError(f"{together} tasks never ran together")
        time.sleep(0.02)
    # A task too many, if Spark had a place for it, starts meanwhile.
    time.sleep(0.7)
    addresses = TaskContext.get().resources()["gpu"].addresses
    return {"addresses": addresses, "device": device.of_task(), "start": start, "end": time.monotonic()}


if __name__ == "__main__":
    folder, together, tasks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with SparkContext() as context:
        held = context.parallelize(range(tasks), tasks).map(lambda task: hold(task, folder, together)).collect()
    (folder / "held.json").write_text(json.dumps(held))
