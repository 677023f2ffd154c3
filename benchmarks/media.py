"""Media to features: `make bench-media`. Pairs are measured side by side, in rounds; median and spread are shown."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import av
import cv2
import numpy as np
import torch
from av.packet import Packet

from avrec_spark import config, session
from avrec_spark.config import FeatureSettings
from avrec_spark.describe import Describer, Task
from avrec_spark.encoders import registry
from avrec_spark.media.cost import CostModel, Facts, pack
from avrec_spark.media.decode import decode
from avrec_spark.media.decoder import Decoder
from avrec_spark.media.records import Frames, Limits, Request
from avrec_spark.pipelines import rows, runner
from benchmarks import corpus
from benchmarks.measure import one_core, spread, timed
from benchmarks.table import table

ROUNDS = 3
CNN, SOUND = "efficientnet-lite0", "librosa"
REPOSITORY = Path(__file__).resolve().parent.parent


def in_a_folder(part: Callable[[Path], str]) -> Callable[[], str]:
    def run() -> str:
        with tempfile.TemporaryDirectory() as folder:
            return part(Path(folder))

    return run


# -- 1 ---------------------------------------------------------------------------------------------------------------


@in_a_folder
def spark_and_pool(folder: Path) -> str:
    """The same kernel, the same packing: two processes of a pool, and two slots of Spark."""
    settings = FeatureSettings()
    files = corpus.mixed(folder / "pool", 300)
    model = CostModel()
    costs = [model.predict(Facts(file.stat().st_size, file.name)) for file in files]
    encoders = (CNN, SOUND)
    chunks = [[str(files[n]) for n in task] for task in pack(costs, 2, settings.seconds_per_task)]
    spark = session.get(config.SparkSettings(master="local[2,4]"))

    def in_spark() -> None:
        tasks = spark.sparkContext.parallelize(chunks, len(chunks)).flatMap(
            lambda chunk: [(uri, uri, list(encoders), True, 0, 0) for uri in chunk]
        )
        frame = spark.createDataFrame(tasks, rows.TASK_SCHEMA).mapInPandas(
            rows.describing(settings, encoders), rows.SCHEMA
        )
        frame.write.format("noop").mode("overwrite").save()

    with multiprocessing.get_context("spawn").Pool(2, _start, (settings, encoders)) as pool:
        pool.map(_describe, chunks[:2], chunksize=1)
        in_spark()
        pools, sparks = [], []
        for _ in range(ROUNDS):
            pools.append(timed(lambda: pool.map(_describe, chunks, chunksize=1)))
            sparks.append(timed(in_spark))
    shares = [a / b for a, b in zip(pools, sparks, strict=True)]
    lines = [
        ["process pool, 2 processes", spread(pools, 1), "1.00"],
        ["Spark, local[2]", spread(sparks, 1), spread(shares)],
    ]
    title = f"Media 1: {len(files)} byte-distinct clips of .5 to 10 s, {' and '.join(encoders)}"
    text = table(title, "make bench-media", ["where", "seconds", "speed ÷ pool"], lines)
    return text + "\nLimit: the CNN takes most of the time in both; Spark adds the start of a task and its rows.\n"


_describer: Describer | None = None


def _start(settings: FeatureSettings, encoders: tuple[str, ...]) -> None:
    global _describer
    _describer = Describer(settings, encoders)


def _describe(uris: list[str]) -> int:
    assert _describer is not None
    tasks = (Task(uri, uri, tuple(_describer.encoders)) for uri in uris)
    return sum(1 for one in _describer.describe(tasks) for _ in [rows.row(one, _describer.encoders)])


# -- 2 ---------------------------------------------------------------------------------------------------------------


@in_a_folder
def one_pass(folder: Path) -> str:
    """Key frames, shots, sound and its features in one pass, beside the bare decode of the same packets."""
    settings = FeatureSettings()
    limits, encoder = Limits.of(settings), registry.create(SOUND, settings)
    lines = []
    for gop in (50, 250):
        film = corpus.enlarged(folder / f"1080p-{gop}.mp4", (1920, 1080), repeats=3, gop=gop)
        request = Request(str(film), frozenset({"frames", "sound"}))
        seconds = decode(request, limits).info.duration or 0.0

        def whole(request: Request = request) -> None:
            encoder.summarise([decode(request, limits).sound])

        passes, bare, every = [], [], []
        with one_core():
            cv2.setNumThreads(1)
            with _recorded_packets() as fed:
                whole()
            for _ in range(ROUNDS):
                bare.append(timed(lambda film=film: _bare(film, fed)))
                passes.append(timed(whole))
                every.append(timed(lambda film=film: _opencv(film)))
        ratio = [a / b for a, b in zip(passes, bare, strict=True)]
        name = f"{seconds:.0f} s, a key frame every {gop / 25:g} s at most"
        lines += [
            [name, "bare decode of the same packets", spread([seconds / t for t in bare], 0), "1.00"],
            [name, "one pass with features of the sound", spread([seconds / t for t in passes], 0), spread(ratio)],
            [name, "OpenCV, every frame, no sound", spread([seconds / t for t in every], 0), ""],
        ]
    header = ["film", "what", "× real time", "time ÷ bare"]
    text = table("Media 2: one pass over 1080p, one core", "make bench-media", header, lines)
    return text + (
        "\nReal clips, enlarged and encoded by libx264, preset medium. The same packets: all of the sound, the key"
        "\nframes, and the runs between them that are looked at for shots. Limit: decoding those; where they are few,"
        "\nthe features of the sound, which cost the same whatever the picture.\n"
    )


Fed = tuple[int | None, str] | None  # time stamp of a packet and which frames were to be left out, or the end of a run


@contextmanager
def _recorded_packets() -> Iterator[list[Fed]]:
    """What the decoder of key frames is fed in the meantime."""
    fed: list[Fed] = []
    feed = Decoder.feed

    def recording(decoder: Decoder, packet: Packet | None) -> list[av.VideoFrame]:
        fed.append(packet and (packet.pts, str(decoder._context.skip_frame)))
        return feed(decoder, packet)

    with patch.object(Decoder, "feed", recording):
        yield fed


def _bare(film: Path, fed: list[Fed]) -> None:
    """Decode those packets of the picture and all of the sound, and keep nothing."""
    wanted = {packet[0] for packet in fed if packet}
    kept = {}
    with av.open(str(film)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        for stream in (video, sound):
            stream.codec_context.thread_count = 1
        for packet in container.demux([video, sound]):
            if packet.stream is sound:
                packet.decode()
            elif packet.pts in wanted:
                kept[packet.pts] = packet
        for one in fed:
            if one:
                video.codec_context.skip_frame = one[1]
                video.codec_context.decode(kept[one[0]])
            else:
                video.codec_context.decode(None)
                video.codec_context.flush_buffers()


def _opencv(film: Path) -> None:
    capture = cv2.VideoCapture(str(film), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while capture.read()[0]:
        pass


# -- 3 ---------------------------------------------------------------------------------------------------------------


@in_a_folder
def incremental(folder: Path) -> str:
    """A first run, a second over the same files, and a third with one more; all in one warm session."""
    source = folder / "incremental"
    corpus.mixed(source, 300, seed=1)
    overrides = [f"catalog.source={source}", f"lakehouse.root={folder / 'lakehouse'}"]
    settings = config.load(REPOSITORY / "conf" / "media.yaml", overrides, environment={})
    jobs = ["catalog", "features"]
    _warm_up(folder)
    first = timed(lambda: runner.run(jobs, settings, "first"))
    unchanged, added = [], []
    for number in range(ROUNDS):
        unchanged.append(timed(lambda number=number: runner.run(jobs, settings, f"again-{number}")))
        corpus.remux(corpus.real_clips()[0], source / f"new-{number}.mp4", 3.0, tag=f"new {number}")
        added.append(timed(lambda number=number: runner.run(jobs, settings, f"more-{number}")))
    more = [a - b for a, b in zip(added, unchanged, strict=True)]
    lines = [
        ["first run", f"{first:.1f}", "1.00"],
        ["unchanged", spread(unchanged, 1), spread([t / first for t in unchanged], 3)],
        ["one file more", spread(added, 1), f"{spread(more, 1)} s over that"],
    ]
    text = table(
        "Media 3: catalog and features of 300 clips, again", "make bench-media", ["run", "seconds", "÷ first"], lines
    )
    return text + "\nLimit: a dozen small Spark queries; an unchanged file costs a stat.\n"


def _warm_up(folder: Path) -> None:
    """A JVM that has compiled its queries, and workers that have loaded their weights."""
    corpus.mixed(folder / "warm", 4, seed=99)
    overrides = [f"catalog.source={folder / 'warm'}", f"lakehouse.root={folder / 'warm-lakehouse'}"]
    settings = config.load(REPOSITORY / "conf" / "media.yaml", overrides, environment={})
    for name in ("one", "two"):
        runner.run(["catalog", "features"], settings, name)


# -- 4 ---------------------------------------------------------------------------------------------------------------


@in_a_folder
def memory(folder: Path) -> str:
    """Peak memory of a worker and of its decoder, in a process of their own, without the CNN."""
    large = corpus.enlarged(folder / "4k.mp4", (3840, 2160))
    long = corpus.remux(_longest(), folder / "two-hours.mp4", 10.0, repeats=int(7200 / 10.0))
    tiny = folder / "tiny"
    corpus.mixed(tiny, 10_000, longest=0.6, seed=2)
    lines = []
    for name, path in (("4K", large), ("two hours", long), ("10,000 tiny files", tiny)):
        command = [sys.executable, "-m", "benchmarks.peak", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout)
        lines.append([name, f"{found['worker']:.0f}", f"{found['decoder']:.0f}", f"{found['seconds']:.1f}"])
    text = table("Media 4: peak memory", "make bench-media", ["input", "worker, MiB", "decoder, MiB", "seconds"], lines)
    return (
        text
        + "\nWorker: Python, torch, librosa. Limit: 600 s of sound at a time, and the frames that a codec refers to.\n"
    )


def _longest() -> Path:
    return next(clip for clip in corpus.real_clips() if "bikes" in clip.name)


# -- 5 ---------------------------------------------------------------------------------------------------------------


@in_a_folder
def images(folder: Path) -> str:
    """EfficientNet-Lite0 on one core: batches in a loop, and the same batches in one slot of Spark."""
    settings = FeatureSettings()
    batches, size = 24, 8
    spark = session.get(config.SparkSettings(master="local[2,4]"))

    def encode(seed: int) -> None:
        pictures = np.random.default_rng(seed).integers(0, 256, (size, 224, 224, 3)).astype(np.uint8)
        registry.create(CNN, settings).summarise([Frames(pictures, np.arange(float(size)))])

    def in_a_loop() -> None:
        torch.set_num_threads(1)
        for seed in range(batches):
            encode(seed)

    def task(frames):  # type: ignore[no-untyped-def]
        torch.set_num_threads(1)
        for frame in frames:
            for seed in frame["id"]:
                encode(int(seed))
            yield frame

    def in_spark() -> None:
        spark.range(0, batches, 1, 1).mapInPandas(task, "id bigint").write.format("noop").mode("overwrite").save()

    in_a_loop()
    in_spark()
    loops, sparks = [], []
    for _ in range(ROUNDS):
        loops.append(timed(in_a_loop))
        sparks.append(timed(in_spark))
    shares = [a / b for a, b in zip(loops, sparks, strict=True)]
    lines = [
        ["plain loop", spread([batches * size / t for t in loops], 0), "1.00"],
        ["Spark, one slot", spread([batches * size / t for t in sparks], 0), spread(shares)],
    ]
    text = table(
        "Media 5: EfficientNet-Lite0, batches of 8, one core",
        "make bench-media",
        ["where", "images/s", "÷ loop"],
        lines,
    )
    return text + "\nLimit: the convolutions.\n"


# -- 6 ---------------------------------------------------------------------------------------------------------------


@in_a_folder
def size(folder: Path) -> str:
    """Time against the number of files: a fixed part, the same whatever the number, and a part for each file."""
    names, counts = (SOUND,), (100, 1_000, 10_000)
    _warm_up(folder)
    seconds = []
    for count in counts:
        source = folder / f"size-{count}"
        corpus.mixed(source, count, longest=2.0, seed=count)
        overrides = [
            f"catalog.source={source}",
            f"lakehouse.root={folder / f'lake-{count}'}",
            f"features.encoders=[{', '.join(names)}]",
        ]
        settings = config.load(REPOSITORY / "conf" / "media.yaml", overrides, environment={})
        runner.run(["catalog"], settings, "r")
        seconds.append(timed(lambda settings=settings: runner.run(["features"], settings, "r")))
    # The line that is nearest in relative terms: each point counts alike.
    each, fixed = np.polyfit(counts, seconds, 1, w=1 / np.array(seconds))
    lines = [
        [f"{count:,}", f"{t:.1f}", f"{fixed + each * count:.1f}", f"{t / (fixed + each * count):.2f}"]
        for count, t in zip(counts, seconds, strict=True)
    ]
    text = table(
        f"Media 6: features ({', '.join(names)}) against the number of clips of .5 to 2 s",
        "make bench-media",
        ["clips", "seconds", f"{fixed:.1f} s + {each * 1000:.1f} ms a clip", "÷ line"],
        lines,
    )
    return text + (
        "\nThe clips are byte-distinct remuxes of a few real ones, so that no content is reused. The fixed part is"
        "\nSpark's: a dozen small queries and commits.\n"
    )
