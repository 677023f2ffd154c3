"""Run every benchmark and write docs/benchmarks.md, with the machine and the versions beside the figures."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import media, models, topk

TARGET = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
LIBRARIES = ("pyspark", "delta-spark", "torch", "horovod", "av", "librosa", "numpy")


def main() -> None:
    sections = [benchmark.run() for benchmark in (models, media, topk)]
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    head = (
        "# Benchmarks\n\n"
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}. Times are of this machine; ratios travel better.\n"
    )
    TARGET.write_text("\n".join([head, *sections]), encoding="utf-8")
    print(TARGET.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
