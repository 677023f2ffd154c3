"""Render the small world: clips, a catalogue, events, and, for tests only, the truth behind them."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np

from avrec_spark import columns as c
from avrec_spark.config import WorldSettings, fingerprint
from avrec_spark.events import reasons
from avrec_spark.world import picture, sound, voice
from avrec_spark.world.factors import Clip, description, draw_clips, title
from avrec_spark.world.users import FIRST_DAY, LAST_DAY, PUBLISHING_DAYS, populate, simulate

_MARKER = "world.json"
_CATALOGUE = (c.ITEM_ID, c.URI, c.TITLE, c.DESCRIPTION, c.TAGS, c.CHANNEL, c.LICENCE, c.PUBLISHED_AT)
# Beside the clips the catalogue lists three things that are wrong in the ways that real ones are.
BROKEN_ITEMS = ("broken-upload", "not-a-video", "never-arrived")


@dataclass(frozen=True)
class World:
    """What was rendered: `events` counts the lines of events.jsonl, the broken ones included."""

    folder: Path
    clips: int
    users: int
    events: int


def render(settings: WorldSettings, folder: Path) -> World:
    """Write media/, catalog.csv, events.jsonl and truth.json into `folder`.

    The same settings give the same world, but for voices where there is no synthesiser. A folder that already holds it
    is left alone; one that holds another world is emptied first.
    """
    marker = folder / _MARKER
    spoken = settings.spoken and voice.synthesiser() is not None
    wanted = fingerprint(settings.model_copy(update={"folder": None, "spoken": spoken}))
    if marker.is_file():
        said = json.loads(marker.read_text())
        if said["settings"] == wanted:
            return World(folder, settings.clips, settings.users, said["events"])
        # Written again when all else is: a rendering that breaks off leaves no marker, neither the new nor the old.
        marker.unlink()
    if (folder / "media").is_dir():
        shutil.rmtree(folder / "media")
    (folder / "media").mkdir(parents=True)
    clips = draw_clips(settings.clips, settings.seed, settings.missing_share, spoken)
    _render_clips(clips, folder / "media")
    published = _write_catalogue(clips, settings, folder)
    events = _write_events(clips, published, settings, folder)
    marker.write_text(json.dumps({"settings": wanted, "events": events}))
    return World(folder, settings.clips, settings.users, events)


# -- media -----------------------------------------------------------------------------------------------------------


def _render_clips(clips: list[Clip], folder: Path) -> None:
    jobs = [(clip, folder / clip.file_name) for clip in clips]
    workers = min(os.cpu_count() or 1, max(1, len(clips) // 8))
    if workers == 1:
        for job in jobs:
            _render_clip(job)
        return
    # A forked process would inherit the threads of whatever runs here.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_render_clip, jobs, chunksize=4))


def _render_clip(job: tuple[Clip, Path]) -> None:
    encode(job[0], job[1])


def encode(clip: Clip, path: Path) -> None:
    """One clip as H.264, a key frame every second, and AAC in MP4; without the track that it lacks."""
    with av.open(str(path), "w") as container:
        video = None if clip.lacks == "look" else _add_video(container, clip)
        audio = None if clip.lacks == "sound" else container.add_stream("aac", rate=sound.SAMPLE_RATE, layout="mono")
        if video is not None:
            for image in picture.frames(clip):
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        if audio is not None:
            wave = av.AudioFrame.from_ndarray(sound.waveform(clip)[None, :], format="fltp", layout="mono")
            wave.sample_rate = sound.SAMPLE_RATE
            container.mux(audio.encode(wave))
            container.mux(audio.encode())


def _add_video(container: av.container.OutputContainer, clip: Clip) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=picture.FRAME_RATE)
    stream.width, stream.height = picture.size(clip)
    stream.pix_fmt = "yuv420p"
    stream.thread_count = 1
    stream.options = {"preset": "superfast", "crf": "23", "g": str(picture.FRAME_RATE), "threads": "1"}
    return stream


# -- catalogue -------------------------------------------------------------------------------------------------------


def _write_catalogue(clips: list[Clip], settings: WorldSettings, folder: Path) -> list[datetime]:
    """catalog.csv; returns when each clip was published."""
    generator = np.random.default_rng([settings.seed, 5])
    published = [FIRST_DAY + timedelta(days=float(generator.uniform(0, PUBLISHING_DAYS))) for _ in clips]
    new = int(settings.new_share * len(clips))
    published[len(clips) - new :] = [LAST_DAY + timedelta(hours=1 + hour) for hour in range(new)]
    rows = [
        {
            c.ITEM_ID: clip.item_id,
            c.URI: f"media/{clip.file_name}",
            **_words(clip, generator),
            c.CHANNEL: f"channel-{generator.integers(1, 9)}",
            c.LICENCE: "CC0-1.0",
            c.PUBLISHED_AT: time.isoformat(timespec="seconds"),
        }
        for clip, time in zip(clips, published, strict=True)
    ]
    # One with both tracks: an upload of it that breaks off is broken in the same way whatever the seed.
    rows += _broken_items(next(clip for clip in clips if clip.lacks is None), folder)
    order = generator.permutation(len(rows))
    with open(folder / "catalog.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _CATALOGUE, restval="")
        writer.writeheader()
        writer.writerows(rows[position] for position in order)
    return published


def _words(clip: Clip, generator: np.random.Generator) -> dict[str, str]:
    if clip.lacks == "words":
        return {}
    return {
        c.TITLE: title(clip, generator),
        c.DESCRIPTION: description(clip, generator),
        c.TAGS: "portrait;short" if clip.portrait else "landscape;short",
    }


def _broken_items(clip: Clip, folder: Path) -> Iterable[dict[str, str]]:
    """An upload that broke off, a text with the name of a video, and a file that is not there."""
    whole = (folder / "media" / clip.file_name).read_bytes()
    (folder / "media" / "broken-upload.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "media" / "not-a-video.mp4").write_text("Upload the video here, please.\n")
    for item_id in BROKEN_ITEMS:
        yield {c.ITEM_ID: item_id, c.URI: f"media/{item_id}.mp4", c.TITLE: item_id.replace("-", " ").capitalize()}


# -- events ----------------------------------------------------------------------------------------------------------


def _write_events(clips: list[Clip], published: list[datetime], settings: WorldSettings, folder: Path) -> int:
    """events.jsonl and truth.json; returns the number of lines."""
    population = populate(clips, settings)
    events = simulate(clips, published, population, settings)
    lines = [json.dumps(event, ensure_ascii=False) for event in events]
    broken = _broken_lines(events, np.random.default_rng([settings.seed, 6]))
    lines += [line for kind in broken.values() for line in kind]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    truth = {
        "clips": [asdict(clip) for clip in clips],
        "users": population.user_ids,
        "senses": population.senses,
        "tastes": population.tastes.round(6).tolist(),
        "affinity": population.affinity.round(6).tolist(),
        "popularity": population.popularity.round(6).tolist(),
        "broken_items": list(BROKEN_ITEMS),
        "broken_lines": {reason: len(kind) for reason, kind in broken.items()},
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    return len(lines)


def _broken_lines(events: list[dict[str, Any]], generator: np.random.Generator) -> dict[str, list[str]]:
    """Lines that must be refused, by the reason for it."""

    def spoilt(count: int, changes: dict[str, Any]) -> list[str]:
        chosen = generator.integers(len(events), size=count)
        return [
            json.dumps(events[position] | {c.EVENT_ID: f"x{generator.bytes(6).hex()}"} | changes, ensure_ascii=False)
            for position in chosen
        ]

    return {
        reasons.BROKEN_RECORD: ['{"user_id": "u1", "item_id": ', "<html>502 Bad Gateway</html>"],
        reasons.UNKNOWN_ITEM: spoilt(5, {c.ITEM_ID: "deleted-long-ago"}),
        reasons.FUTURE_TIME: spoilt(3, {c.TIMESTAMP: "2999-01-01T00:00:00Z"}),
        reasons.BAD_TIMESTAMP: spoilt(2, {c.TIMESTAMP: "yesterday"}),
        reasons.IMPOSSIBLE_WATCH_TIME: spoilt(4, {c.WATCH_SECONDS: -7.0}),
        reasons.IMPOSSIBLE_IMPRESSION: spoilt(2, {c.PROPENSITY: 0.0}),
        reasons.UNKNOWN_EVENT_TYPE: spoilt(3, {c.EVENT_TYPE: "teleport"}),
        reasons.MISSING_USER: spoilt(2, {c.USER_ID: None}),
        reasons.DUPLICATE: spoilt(6, {}),
    }
