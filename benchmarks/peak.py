"""Peak memory of describing a file or a folder, as JSON: `python -m benchmarks.peak PATH`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from avrec_spark.config import FeatureSettings
from avrec_spark.describe import Describer, Task

ENCODERS = ("palette", "optical-flow", "librosa")


def main(path: Path) -> None:
    started = time.perf_counter()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    with Describer(FeatureSettings(), ENCODERS) as describer:
        tasks = [Task(str(file), str(file), ENCODERS) for file in files]
        first = [(one.media.status, one.media.parts) for one in describer.describe(tasks)]
        statuses = {status for status, _ in first}
        for file, (_, parts) in zip(files, first, strict=True):
            later = (Task(str(file), str(file), ENCODERS, part=part) for part in range(1, parts))
            statuses |= {one.media.status for one in describer.describe(later)}
        peak = {"worker": _peak("self"), "decoder": _peak(str(describer.pid))}
    if statuses != {"ok"}:
        raise SystemExit(f"Not all of {path} was ok: {sorted(statuses)}")
    print(json.dumps(peak | {"seconds": time.perf_counter() - started}))


def _peak(process: str) -> float:
    """MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
