"""The kernel of the features job, without Spark: what is decoded for whom, and the ranges of a long file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avrec_spark.config import FeatureSettings
from avrec_spark.describe import Describer, Task, merged
from avrec_spark.errors import MissingExtraError
from tests.media import hostile

ENCODERS = ("palette", "librosa")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 s: a tone and a moving stripe, a key frame a second."""
    return hostile.encode(tmp_path_factory.mktemp("long") / "long.mp4", seconds=70, size=(64, 48), gop=20)


def describe(settings: FeatureSettings, *tasks: Task):
    with Describer(settings, ENCODERS) as describer:
        return list(describer.describe(tasks)), describer.encoders


@pytest.fixture(scope="module")
def whole_and_split(long_clip):
    (whole,), encoders = describe(FeatureSettings(max_key_frames=100), Task("w", str(long_clip), ENCODERS))
    settings = FeatureSettings(range_seconds=30, max_key_frames=100)
    parts, _ = describe(settings, *[Task("w", str(long_clip), ENCODERS, part=part) for part in range(3)])
    return whole, parts, merged([parts[2], parts[0], parts[1]]), encoders


def test_a_long_file_is_split_into_ranges_of_the_length_that_is_set(whole_and_split):
    whole, parts, _, _ = whole_and_split

    assert whole.media.parts == 1
    assert [part.media.parts for part in parts] == [3, 3, 3]
    assert [part.media.status for part in parts] == ["ok"] * 3
    assert [part.media.seconds_decoded for part in parts] == pytest.approx([30, 30, 10], abs=0.1)


def test_what_is_counted_over_ranges_adds_up_exactly_to_the_whole(whole_and_split):
    whole, _, split, _ = whole_and_split

    for name in ("packets", "key_frames", "black_frames", "blocks", "silent_blocks"):
        assert getattr(split.media.statistics, name) == getattr(whole.media.statistics, name), name
    assert split.media.statistics.key_frames == 70
    assert split.media.statistics.packets == 1400
    assert split.media.seconds_decoded == pytest.approx(whole.media.seconds_decoded, abs=1e-3)


def test_gated_loudness_of_ranges_is_that_of_the_whole_within_a_tenth(whole_and_split):
    whole, _, split, _ = whole_and_split

    assert split.media.info.loudness == pytest.approx(whole.media.info.loudness, abs=0.1)


def test_shots_that_a_border_cuts_in_two_are_one(whole_and_split):
    whole, _, split, _ = whole_and_split

    assert [(shot.start, shot.end, shot.transition) for shot in split.media.shots] == [
        (0.0, pytest.approx(70.0, abs=0.1), "start")
    ]
    assert len(whole.media.shots) == 1


def test_vectors_of_ranges_are_those_of_the_whole(whole_and_split):
    whole, _, split, encoders = whole_and_split

    for name, encoder in encoders.items():
        one, other = (encoder.vectors(d.summaries[name].total[None])[0] for d in (whole, split))
        assert float(one @ other) > 0.9999, name
        assert np.all(np.diff(split.summaries[name].starts) >= 0)


def test_a_file_of_which_a_range_is_lost_is_partial_and_says_so(whole_and_split):
    _, parts, _, _ = whole_and_split
    lost = Task("w", "no such file.mp4", ENCODERS, part=1)
    (missing,), _ = describe(FeatureSettings(), lost)

    media = merged([parts[0], missing, parts[2]]).media

    assert (media.status, media.reason, media.retryable) == ("partial", "not_found", True)
    assert "in 1 of its 3 ranges" in media.detail


def test_sound_that_follows_all_of_the_pictures_in_the_file_is_found(tmp_path):
    # The fixture writes the whole picture track first.
    path = hostile.encode(tmp_path / "one-after-the-other.mkv", seconds=90, size=(32, 32), fps=5)
    (first, second), _ = describe(
        FeatureSettings(range_seconds=30),
        *[Task("w", str(path), ENCODERS, part=part) for part in (0, 1)],
    )

    assert [part.media.seconds_decoded for part in (first, second)] == pytest.approx([30, 30], abs=0.1)
    assert first.summaries["librosa"] is not None


def test_an_encoder_that_is_added_decodes_only_what_it_reads(long_clip):
    task = Task("w", str(long_clip), ("librosa",), full=False)
    (described,), _ = describe(FeatureSettings(), task)

    assert described.media.frames_decoded == 0 and described.media.seconds_decoded == pytest.approx(70, abs=0.1)
    assert list(described.summaries) == ["librosa"]
    (described,), _ = describe(FeatureSettings(), Task("w", str(long_clip), ("palette",), full=False))
    assert described.media.frames_decoded > 0 and described.media.seconds_decoded == 0


def test_a_file_that_an_encoder_cannot_stand_costs_that_vector_and_no_other(long_clip, monkeypatch):
    with Describer(FeatureSettings(), ENCODERS) as describer:
        encoder = describer.encoders["palette"]
        summarise = encoder.summarise

        def choosy(batch):
            if any(len(frames) == 0 for frames in batch):
                raise ZeroDivisionError("no frames")
            return summarise(batch)

        monkeypatch.setattr(encoder, "summarise", choosy)
        good, bad = describer.describe(
            [Task("good", str(long_clip), ENCODERS), Task("bad", "no such file.mp4", ENCODERS)]
        )

    assert good.summaries["palette"] is not None and good.failures == {}
    assert bad.failures == {"palette": "ZeroDivisionError: no frames"}


def test_a_missing_library_is_no_file_s_fault(long_clip, monkeypatch):
    with Describer(FeatureSettings(), ("palette",)) as describer:

        def missing(batch):
            raise MissingExtraError("The encoder", "library", "extra")

        monkeypatch.setattr(describer.encoders["palette"], "summarise", missing)
        with pytest.raises(MissingExtraError):
            list(describer.describe([Task("w", str(long_clip), ("palette",))]))
