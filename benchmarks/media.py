"""Media to features: decode against the bare decode of the same packets, and what the encoders add."""

from __future__ import annotations

import os
import time
from pathlib import Path

import av
import torch

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import registry
from avrec_spark.media.decode import decode
from avrec_spark.media.records import Limits
from benchmarks.table import table

CLIPS = Path(os.environ.get("AVREC_DATA", Path(__file__).resolve().parent.parent / ".cache" / "data")) / "clips"


def run() -> str:
    torch.set_num_threads(1)
    settings = FeatureSettings()
    encoders = {name: registry.create(name, settings) for name in ("efficientnet-lite0", "librosa")}
    files = sorted(CLIPS.glob("*.mp4"))
    warm = decode(str(files[0]), Limits.of(settings))
    encoders["efficientnet-lite0"].encode([warm.frames])
    encoders["librosa"].encode([warm.audio])
    rows = []
    for file in files:
        started = time.perf_counter()
        media = decode(str(file), Limits.of(settings))
        decoded = time.perf_counter()
        encoders["librosa"].encode([media.audio])
        heard = time.perf_counter()
        encoders["efficientnet-lite0"].encode([media.frames])
        seen = time.perf_counter()
        length = media.info.duration or 0.0
        rows.append(
            [
                file.name,
                f"{media.info.width}×{media.info.height}",
                f"{length:.1f}",
                f"{length / (decoded - started):.0f}×",
                f"{(decoded - started) / bare_decode(file):.2f}",
                f"{length / (heard - started):.0f}×",
                f"{length / (seen - started):.0f}×",
            ]
        )
    header = ["clip", "size", "seconds", "decode", "decode ÷ full bare decode", "+ audio features", "+ visual features"]
    return table("Media to features, one core, × real time", "python -m benchmarks", header, rows)


def bare_decode(file: Path) -> float:
    """Seconds to decode every packet of the file and keep nothing."""
    started = time.perf_counter()
    with av.open(str(file)) as container:
        for stream in container.streams.video:
            stream.thread_count = 1
        for packet in container.demux():
            packet.decode()
    return time.perf_counter() - started
