from __future__ import annotations

import colorsys
import csv
import json
from collections import Counter
from dataclasses import asdict, replace
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
from avrec_spark.world.factors import (
    LEVELS,
    PALETTES,
    PITCHES,
    SENSES,
    TEMPOS,
    TOPICS,
    Clip,
    description,
    draw_clips,
    title,
)
from avrec_spark.world.render import render
from avrec_spark.world.users import EXAMINED, FIRST_DAY, LAST_DAY, populate, simulate

LATER = datetime(2026, 11, 1, tzinfo=UTC)


def clip(**changes):
    planted = {"palette": "ocean", "motion": "spin", "tempo": "steady", "pitch": "middle", "topic": "finance"}
    return Clip("x", **planted | changes, seconds=6.0, portrait=False, seed=5)


def clips_of(world):
    return [Clip(**said) for said in json.loads((world / "truth.json").read_text())["clips"]]


def test_a_clip_decodes_with_the_size_and_length_that_were_planted(world12):
    for said in [asdict(one) for one in clips_of(world12) if one.lacks is None][:3]:
        media = decode(Request(str(world12 / "media" / f"{said['item_id']}.mp4")), Limits())
        assert media.status == "ok"
        assert media.info.duration == pytest.approx(said["seconds"], abs=0.15)
        assert (media.info.width, media.info.height) == ((180, 320) if said["portrait"] else (320, 180))
        assert len(media.frames) >= 4
        assert len(media.sound) / 22_050 == pytest.approx(said["seconds"], abs=0.15)


def test_one_clip_in_ten_lacks_each_sense_and_is_in_the_catalogue_all_the_same(world12):
    with open(world12 / "catalog.csv", encoding="utf-8") as file:
        rows = {row["item_id"]: row for row in csv.DictReader(file)}
    lacking = {one.lacks: one for one in clips_of(world12) if one.lacks}
    assert set(lacking) == set(SENSES)
    seen = {}
    for sense, one in lacking.items():
        media = decode(Request(str(world12 / rows[one.item_id]["uri"])), Limits())
        seen[sense] = (media.status, len(media.frames) > 0, len(media.sound) > 0, rows[one.item_id]["title"] != "")
    assert seen == {
        "look": ("ok", False, True, True),
        "sound": ("ok", True, False, True),
        "words": ("ok", True, True, False),
    }
    assert not rows[lacking["words"].item_id]["description"] and not rows[lacking["words"].item_id]["tags"]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_title_names_its_topic_and_tells_nothing_else(topic):
    others = {"palette": "ember", "motion": "drift", "tempo": "fast", "pitch": "high"}
    for seed in range(20):
        one, other = (
            title(said, generator) + description(said, generator)
            for said, generator in (
                (clip(topic=topic), np.random.default_rng(seed)),
                (clip(topic=topic, **others), np.random.default_rng(seed)),
            )
        )
        assert one == other
        named = {name for name, (english, chinese) in TOPICS.items() if any(s in one for s in english + chinese)}
        assert named == {topic}


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


@pytest.fixture(scope="module")
def lived():
    """(clips, users, events) of 200 users on 60 clips."""
    clips = draw_clips(60, seed=3, missing_share=0.1)
    settings = WorldSettings(clips=60, users=200, events_per_user=30)
    population = populate(clips, settings)
    return clips, population, simulate(clips, [FIRST_DAY] * len(clips), population, settings)


def test_users_watch_more_of_what_they_like(lived):
    clips, population, events = lived
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


@pytest.mark.parametrize("sense", SENSES)
def test_whoever_goes_by_a_sense_likes_clips_by_its_factors(lived, sense):
    _, population, _ = lived
    users = [number for number, own in enumerate(population.senses) if own == sense]
    assert len(users) > 30
    first = 0
    variance = {}
    for factor, levels in LEVELS.items():
        variance[factor] = np.square(population.tastes[users, first : first + len(levels)]).mean()
        first += len(levels)
    own = sum(variance[factor] for factor in SENSES[sense])
    assert own > 0.6 * sum(variance.values())


def test_nobody_likes_or_dislikes_a_clip_for_what_it_lacks(lived):
    clips, _, _ = lived
    silent = next(number for number, one in enumerate(clips) if one.lacks == "sound")
    same = replace(clips[silent], tempo="fast", pitch="high"), replace(clips[silent], tempo="slow", pitch="low")
    settings = WorldSettings(clips=2, users=50)
    affinity = populate(list(same), settings).affinity
    np.testing.assert_allclose(affinity[:, 0], affinity[:, 1])


def test_places_further_down_are_looked_at_more_rarely(lived):
    _, _, events = lived
    frame = pd.DataFrame(events)
    shown = frame[frame["event_type"] == "impression"]
    acts = frame[frame["event_type"].isin(["view", "skip"])][["list_id", "item_id"]].assign(looked=1.0)
    rate = shown.merge(acts, "left", ["list_id", "item_id"]).groupby("position")["looked"].count()
    rate = rate / shown.groupby("position").size()
    assert rate.index.tolist() == list(range(len(EXAMINED)))
    np.testing.assert_allclose(rate, EXAMINED, atol=0.05)


def test_every_act_follows_an_impression_of_the_same_list(lived):
    _, _, events = lived
    seen = set()
    for event in sorted(events, key=lambda event: (event["timestamp"], event["event_type"] != "impression")):
        key = event["list_id"], event["item_id"]
        assert event["event_type"] == "impression" or key in seen
        seen.add(key)


def test_propensities_are_how_often_an_item_comes_first():
    clips = draw_clips(4, seed=3)
    settings = WorldSettings(clips=4, users=1, events_per_user=20_000)
    frame = pd.DataFrame(simulate(clips, [FIRST_DAY] * 4, populate(clips, settings), settings))
    first = frame[(frame["event_type"] == "impression") & (frame["position"] == 0)]
    said = first.groupby("item_id")["propensity"].first()
    assert said.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(first["item_id"].value_counts(normalize=True)[said.index], said, atol=0.02)


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
    assert 1 <= (kinds == {"impression", "skip"}).sum() <= 20


def test_who_knows_the_tastes_ranks_far_better_than_popularity_and_popularity_better_than_chance():
    settings = WorldSettings()
    clips = draw_clips(settings.clips, settings.seed, settings.missing_share)
    population = populate(clips, settings)
    items = {one.item_id: number for number, one in enumerate(clips)}
    users = {user_id: number for number, user_id in enumerate(population.user_ids)}
    train, held_out = np.zeros((2, len(users), len(items)), bool)
    # In order of time; a user's last fifth is held out.
    seen = pd.DataFrame(simulate(clips, [FIRST_DAY] * len(clips), population, settings))
    seen = seen[seen["event_type"] == "view"].drop_duplicates(["user_id", "item_id"])
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
    assert ndcg(population.appeal()) > 2 * popular
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


def test_the_last_clips_come_out_after_the_last_event_and_nobody_has_seen_them(world12):
    with open(world12 / "catalog.csv", encoding="utf-8") as file:
        published = {row["item_id"]: row["published_at"] for row in csv.DictReader(file)}
    truth = json.loads((world12 / "truth.json").read_text())
    lines = (world12 / "events.jsonl").read_text().splitlines()
    lines = lines[: len(lines) - sum(truth["broken_lines"].values())]
    seen = {event["item_id"] for event in map(json.loads, lines)}
    clips = [clip["item_id"] for clip in truth["clips"]]
    assert set(clips) - seen == {clips[-1]}
    assert published[clips[-1]] > max(json.loads(line)["timestamp"] for line in lines)


def test_clips_to_come_change_neither_what_is_drawn_nor_who_likes_what():
    clips = draw_clips(20, seed=3)
    settings = WorldSettings(clips=20, users=30, events_per_user=20)
    population = populate(clips, settings)
    out, never = [FIRST_DAY] * 10, [LAST_DAY] * 10
    events = simulate(clips, out + never, population, settings)
    assert {event["item_id"] for event in events} == {clip.item_id for clip in clips[:10]}
    first = replace(population, affinity=population.affinity[:, :10], popularity=population.popularity[:10])
    assert events == simulate(clips[:10], out, first, settings)


def test_the_same_seed_gives_the_same_world_and_another_another(tmp_path):
    tiny = WorldSettings(clips=2, users=5, events_per_user=5)
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        render(tiny.model_copy(update={"seed": seed}), tmp_path / name)
    for name in ("catalog.csv", "events.jsonl", "truth.json"):
        one, again, other = ((tmp_path / place / name).read_text() for place in ("one", "again", "other"))
        assert one == again != other


def test_a_world_that_is_there_is_left_alone_and_another_one_replaces_it(tmp_path):
    tiny = WorldSettings(clips=2, users=5, events_per_user=5)
    first = render(tiny, tmp_path)
    marker = (tmp_path / "world.json").stat().st_mtime_ns
    assert render(tiny, tmp_path) == first
    assert (tmp_path / "world.json").stat().st_mtime_ns == marker
    render(tiny.model_copy(update={"clips": 3}), tmp_path)
    assert len(list((tmp_path / "media").iterdir())) == 3 + 2


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
