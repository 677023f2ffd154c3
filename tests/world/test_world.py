from __future__ import annotations

import colorsys
import csv
import json
from collections import Counter

import numpy as np
import pytest

from avrec_spark.config import WorldSettings
from avrec_spark.media.decode import decode
from avrec_spark.media.records import Limits
from avrec_spark.world import picture, sound
from avrec_spark.world.factors import LEVELS, PALETTES, PITCHES, TEMPOS, Clip, draw_clips
from avrec_spark.world.render import render
from avrec_spark.world.users import FIRST_DAY, populate, simulate

SMALL = WorldSettings(clips=12, users=40, events_per_user=12)


def clip(**changes):
    planted = {"palette": "ocean", "motion": "spin", "tempo": "steady", "pitch": "middle"} | changes
    return Clip("x", **planted, seconds=6.0, portrait=False, seed=5)


def test_a_clip_decodes_with_the_size_and_length_that_were_planted(world12):
    truth = json.loads((world12 / "truth.json").read_text())
    for said in truth["clips"][:3]:
        media = decode(str(world12 / "media" / f"{said['item_id']}.mp4"), Limits())
        assert media.status == "ok"
        assert media.info.duration == pytest.approx(said["seconds"], abs=0.15)
        assert (media.info.width, media.info.height) == ((180, 320) if said["portrait"] else (320, 180))
        assert len(media.frames) >= 4
        assert len(media.audio) / 22_050 == pytest.approx(said["seconds"], abs=0.15)


@pytest.mark.parametrize("pitch", PITCHES)
def test_the_loudest_frequency_is_the_planted_pitch(pitch):
    wave = sound.waveform(clip(pitch=pitch))
    spectrum = np.abs(np.fft.rfft(wave))
    frequencies = np.fft.rfftfreq(len(wave), 1 / sound.SAMPLE_RATE)
    assert frequencies[spectrum.argmax()] == pytest.approx(PITCHES[pitch], rel=0.02)


@pytest.mark.parametrize("tempo", TEMPOS)
def test_the_beat_comes_at_the_planted_tempo(tempo):
    wave = sound.waveform(clip(tempo=tempo))
    step = sound.SAMPLE_RATE // 100
    energy = np.array([np.square(wave[start : start + step]).sum() for start in range(0, len(wave) - step, step)])
    onsets = np.maximum(np.diff(np.sqrt(energy)), 0)
    # Lags of 0.3 to 1 second, in hundredths.
    lags = np.arange(30, 101)
    strength = [np.dot(onsets[:-lag], onsets[lag:]) / (len(onsets) - lag) for lag in lags]
    beat = 60 / TEMPOS[tempo]
    assert lags[int(np.argmax(strength))] / 100 == pytest.approx(beat, abs=0.03)


@pytest.mark.parametrize("palette", PALETTES)
def test_the_hue_of_the_picture_is_that_of_the_palette(palette):
    colour = np.mean([frame.mean(axis=(0, 1)) for frame in picture.frames(clip(palette=palette))], axis=0) / 255
    hue = colorsys.rgb_to_hsv(*colour)[0] * 360
    distance = {name: abs((hue - other.hue + 180) % 360 - 180) for name, other in PALETTES.items()}
    assert min(distance, key=distance.get) == palette


def test_users_watch_more_of_what_they_like():
    clips = draw_clips(60, seed=3)
    settings = WorldSettings(clips=60, users=200, events_per_user=30)
    population = populate(clips, settings)
    events = simulate(clips, [FIRST_DAY] * len(clips), population, settings)
    affinity = {
        (user, clips[item].item_id): population.affinity[number, item]
        for number, user in enumerate(population.user_ids)
        for item in range(len(clips))
    }
    seen = {
        kind: [affinity[e["user_id"], e["item_id"]] for e in events if e["event_type"] == kind]
        for kind in ("skip", "view", "like")
    }
    assert np.mean(seen["like"]) > np.mean(seen["view"]) > np.mean(seen["skip"])


def test_nothing_happens_before_it_was_published(world12):
    with open(world12 / "catalog.csv", encoding="utf-8") as file:
        published = {row["item_id"]: row["published_at"] for row in csv.DictReader(file)}
    truth = json.loads((world12 / "truth.json").read_text())
    broken = sum(truth["broken_lines"].values())
    lines = (world12 / "events.jsonl").read_text().splitlines()
    for line in lines[: len(lines) - broken]:
        event = json.loads(line)
        assert event["timestamp"] >= published[event["item_id"]][:19]


def test_the_same_seed_gives_the_same_world_and_another_another(world12, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    render(SMALL, again)
    render(SMALL.model_copy(update={"seed": 8}), other)
    for name in ("catalog.csv", "events.jsonl", "truth.json"):
        assert (again / name).read_text() == (world12 / name).read_text()
        assert (other / name).read_text() != (world12 / name).read_text()


def test_a_world_that_is_there_is_left_alone_and_another_one_replaces_it(tmp_path):
    tiny = WorldSettings(clips=2, users=5, events_per_user=5)
    first = render(tiny, tmp_path)
    marker = (tmp_path / "world.json").stat().st_mtime_ns
    assert render(tiny, tmp_path) == first
    assert (tmp_path / "world.json").stat().st_mtime_ns == marker
    render(tiny.model_copy(update={"clips": 3}), tmp_path)
    assert len(list((tmp_path / "media").glob("*.mp4"))) == 3 + 2


def test_levels_are_drawn_about_evenly():
    clips = draw_clips(600, seed=1)
    for factor, levels in LEVELS.items():
        counts = Counter(getattr(one, factor) for one in clips)
        assert all(counts[level] == pytest.approx(600 / len(levels), rel=0.25) for level in levels)
