"""Run benchmarks and write their sections of docs/benchmarks.md: `python -m benchmarks [NAME …]`, default all."""

from __future__ import annotations

import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
# Section and the function that writes it.
SECTIONS = {
    "models-lf-100k": "models:lf_100k",
    "models-last-out-100k": "models:last_out_100k",
    "models-cold-100k": "models:cold_100k",
    "models-tiktok": "models:tiktok",
    "media-pool": "media:spark_and_pool",
    "media-pass": "media:one_pass",
    "media-incremental": "media:incremental",
    "media-memory": "media:memory",
    "media-cnn": "media:images",
    "media-size": "media:size",
    "shots": "shots:run",
    "stability": "stability:run",
    "topk": "topk:run",
    "training": "training:run",
    "fusion-films": "fusion:films",
    "fusion-videos": "fusion:videos",
    "fusion-kept": "fusion:kept",
    "fusion-speed": "fusion:speed",
    "lifecycle": "lifecycle:run",
    "metrics": "metrics:run",
    "scale": "scale:run",
    "world": "world:run",
    "labels": "labels:run",
}
LIBRARIES = ("pyspark", "delta-spark", "torch", "horovod", "av", "librosa", "numpy")
HEAD = """# Benchmarks

Written by `make bench`, each section also by `python -m benchmarks NAME`. Times are of the machine that the section
names; ratios travel better.
"""
_SECTION = re.compile(r"<!-- ([\w-]+) -->\n(.*?)(?=\n<!-- [\w-]+ -->\n|\Z)", re.DOTALL)


def main(names: list[str]) -> None:
    for name in names or SECTIONS:
        module, function = SECTIONS[name].split(":")
        # Written one by one: an hour of measurements must not be lost to the last of them.
        _write(name, getattr(import_module(f"benchmarks.{module}"), function)())
    print(TARGET.read_text(encoding="utf-8"))


def _write(name: str, text: str) -> None:
    before = dict(_SECTION.findall(TARGET.read_text(encoding="utf-8"))) if TARGET.exists() else {}
    sections = before | {name: f"{_machine()}\n\n{text.strip()}\n"}
    body = "".join(f"\n<!-- {one} -->\n{sections[one].strip()}\n" for one in SECTIONS if one in sections)
    TARGET.write_text(HEAD + body, encoding="utf-8")


def _machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"*{datetime.now(UTC):%Y-%m-%d}: {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}.*"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
