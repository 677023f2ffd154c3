from __future__ import annotations

import colorsys
import csv
import json
from collections import Counter
from datetime import UTC, datetime
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from avrec_spark.config import EventSettings, WorldSettings
from avrec_spark.events.cleaning import clean
from avrec_spark.media.decode import decode
from avrec_spark.media.records import Limits, Request
from avrec_spark.world import picture, sound
from avrec_spark.world.factors import LEVELS, PALETTES, PITCHES, TEMPOS, Clip, draw_clips
from avrec_spark.world.render import render
from avrec_spark.world.users import FIRST_DAY, populate, simulate

LATER = datetime(2026, 11, 1, tzinfo=UTC)
SMALL = WorldSettings(clips=12, users=40, events_per_user=12)


def clip(**changes):
    planted = {"palette": "ocean", "motion": "spin", "tempo": "steady", "pitch": "middle"} | changes
    return Clip("x", **planted, seconds=6.0, portrait=False, seed=5)


def test_a_clip_decodes_with_the_size_and_length_that_were_planted(world12):
    truth = json.loads((world12 / "truth.json").read_text())
    for said in truth["clips"][:3]:
        media = decode(Request(str(world12 / "media" / f"{said['item_id']}.mp4")), Limits())
        assert media.status == "ok"
        assert media.info.duration == pytest.approx(said["seconds"], abs=0.15)
        assert (media.info.width, media.info.height) == ((180, 320) if said["portrait"] else (320, 180))
        assert len(media.frames) >= 4
        assert len(media.sound) / 22_050 == pytest.approx(said["seconds"], abs=0.15)


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


def test_broken_lines_are_refused_for_the_planted_reasons_and_no_others(world12):
    truth = json.loads((world12 / "truth.json").read_text())
    frame = pd.DataFrame([_record(line) for line in (world12 / "events.jsonl").read_text().splitlines()])
    frame = frame.astype({"watch_seconds": "string"}).assign(rating=None)
    judged = clean(frame, EventSettings(), LATER)
    accepted = judged[judged["reason"].isna()]
    with open(world12 / "catalog.csv", encoding="utf-8") as file:
        unknown = ~accepted["item_id"].isin([row["item_id"] for row in csv.DictReader(file)])
    refused = Counter(judged["reason"].dropna())
    refused["unknown_item"] = int(unknown.sum())
    refused["duplicate"] = int(accepted.duplicated(["user_id", "item_id", "timestamp", "event_type"]).sum())
    assert refused == truth["broken_lines"]


def _record(line):
    try:
        return json.loads(line)
    except ValueError:
        return {}


def test_a_few_users_leave_only_skips_and_so_no_preference():
    settings = WorldSettings(clips=20, users=400, events_per_user=20)
    clips = draw_clips(20, seed=3)
    events = pd.DataFrame(simulate(clips, [FIRST_DAY] * 20, populate(clips, settings), settings))
    kinds = events.groupby("user_id")["event_type"].agg(set)
    assert 1 <= (kinds == {"skip"}).sum() <= 20


def test_who_knows_the_tastes_ranks_far_better_than_popularity_and_popularity_better_than_chance():
    settings = WorldSettings()
    clips = draw_clips(settings.clips, settings.seed)
    population = populate(clips, settings)
    items = {one.item_id: number for number, one in enumerate(clips)}
    users = {user_id: number for number, user_id in enumerate(population.user_ids)}
    train, held_out = np.zeros((2, len(users), len(items)), bool)
    # In order of time; a user's last fifth is held out.
    seen = pd.DataFrame(simulate(clips, [FIRST_DAY] * len(clips), population, settings))
    seen = seen[seen["event_type"] != "skip"].drop_duplicates(["user_id", "item_id"])
    for user_id, of_user in seen.groupby("user_id")["item_id"]:
        chosen = of_user.map(items).to_numpy()
        first_held_out = int(np.ceil(len(chosen) * 0.8))
        train[users[user_id], chosen[:first_held_out]] = True
        held_out[users[user_id], chosen[first_held_out:]] = True

    def ndcg(scores):
        ranked = np.argsort(-np.where(train, -np.inf, scores), axis=1)[:, :10]
        gains = np.take_along_axis(held_out, ranked, 1) / np.log2(np.arange(2, 12))
        ideal = np.cumsum(1 / np.log2(np.arange(2, 12)))
        relevant = np.minimum(held_out.sum(axis=1), 10)
        return np.mean(gains.sum(axis=1)[relevant > 0] / ideal[relevant[relevant > 0] - 1])

    popular = ndcg(np.broadcast_to(train.sum(axis=0), train.shape))
    chance = ndcg(np.random.default_rng(0).random(train.shape))
    assert ndcg(population.affinity) > 2 * popular
    assert popular > 1.4 * chance


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


def test_a_rendering_that_broke_off_is_begun_again(tmp_path, monkeypatch):
    tiny = WorldSettings(clips=2, users=5, events_per_user=5)
    render(tiny, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("avrec_spark.world.render._write_events", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            render(tiny.model_copy(update={"seed": 8}), tmp_path)
    render(tiny, tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert {file.stem for file in (tmp_path / "media").iterdir()} == {
        *(one["item_id"] for one in truth["clips"]),
        *("broken-upload", "not-a-video"),
    }


def test_levels_are_drawn_about_evenly():
    clips = draw_clips(600, seed=1)
    for factor, levels in LEVELS.items():
        counts = Counter(getattr(one, factor) for one in clips)
        assert all(counts[level] == pytest.approx(600 / len(levels), rel=0.25) for level in levels)
