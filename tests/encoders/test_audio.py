"""Audio features of sounds whose features are known, and how they add up over the ranges of a long file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.encoders import descriptors
from avrec_spark.encoders.audio import LibrosaEncoder, describe
from avrec_spark.encoders.descriptors import CONTEXT_SECONDS, TOTALS
from avrec_spark.media.records import Sound

RATE = 22_050
# Semitones above A (440 Hz).
C, D, E, F, G, A, B = -9, -7, -5, -4, -2, 0, 2


def _time(seconds: float, rate: int = RATE) -> NDArray[np.float64]:
    return np.arange(round(seconds * rate)) / rate


def _tone(pitch: float, seconds: float = 4.0, loudness: float = 0.3, rate: int = RATE) -> NDArray[np.float32]:
    return (loudness * np.sin(2 * np.pi * pitch * _time(seconds, rate))).astype(np.float32)


def _chord(*notes: int, seconds: float = 1.0) -> NDArray[np.float32]:
    """Notes with four harmonics each."""
    tones = [_tone(440 * 2 ** (note / 12) * k, seconds, 0.1 / k) for note in notes for k in range(1, 5)]
    return np.sum(tones, axis=0, dtype=np.float32)


def _clicks(tempo: float, seconds: float = 12.0) -> NDArray[np.float32]:
    """Noise that dies away within 20 ms, on every beat."""
    since = _time(seconds) % (60 / tempo)
    return (0.5 * np.exp(-since / 0.005) * np.random.default_rng(0).normal(size=len(since))).astype(np.float32)


def _noise(seconds: float = 4.0, loudness: float = 0.1) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, loudness, round(seconds * RATE)).astype(np.float32)


def _song(seconds: float) -> NDArray[np.float32]:
    """Clicks, a melody, noise that comes and goes, and a second of silence."""
    random, time = np.random.default_rng(3), _time(seconds)
    melody = np.concatenate([_tone(220 * 2 ** (random.integers(24) / 12), 0.5) for _ in range(round(2 * seconds))])
    song = _clicks(97, seconds) + melody + _noise(seconds) * np.sin(2 * np.pi * 0.05 * time) ** 2
    song[(time > 33.2) & (time < 34.9)] = 0
    return song.astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_pitch_and_chroma_name_the_note_at_any_rate(rate):
    features = describe(_tone(440, rate=rate), rate)

    assert features["pitch"][0] == pytest.approx(1.0, abs=0.03)  # an octave above 220 Hz
    assert np.argmax(features["harmony"]) == 9  # A
    assert features["pitch"][1] < 0.05  # one note has no spread


def test_of_two_pitches_the_louder_one_counts():
    assert describe(np.r_[_tone(880), _tone(220, loudness=0.01)], RATE)["pitch"][0] == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize("tempo", [60, 90, 120, 150, 171])
def test_a_click_track_has_its_tempo_and_a_strong_beat(tempo):
    octaves, strength, onsets = describe(_clicks(tempo), RATE)["tempo"]

    assert 120 * 2**octaves == pytest.approx(tempo, rel=0.02)
    assert strength > 0.5
    assert onsets == pytest.approx(tempo / 60, rel=0.1)


def test_held_tones_have_no_onsets_and_noise_no_beat():
    assert describe(_tone(440), RATE)["tempo"][2] == 0
    assert describe(_chord(C, E, G, seconds=10), RATE)["tempo"][2] == 0
    assert describe(_noise(20), RATE)["tempo"][1] < 0.2


@pytest.mark.parametrize(
    ("chords", "fifths", "is_major"),
    [
        pytest.param([(C,), (D,), (E,), (F,), (G,), (A,), (B,), (C,)], 0, True, id="C major scale"),
        pytest.param([(C, E, G), (F, A, C), (G, B, D), (C, E, G)], 0, True, id="C major cadence"),
        pytest.param([(G, B, D), (C, E, G), (D, F + 1, A), (G, B, D)], 1, True, id="G major cadence"),
        pytest.param([(A, C, E), (D, F, A), (E, G + 1, B), (A, C, E)], 0, False, id="A minor cadence"),
    ],
)
def test_the_key_lies_on_the_circle_of_fifths(chords, fifths, is_major):
    x, y, mode, fit = describe(np.concatenate([_chord(*notes) for notes in chords]), RATE)["key"]

    assert round(np.degrees(np.arctan2(y, x))) == 30 * fifths
    assert (mode > 0) == is_major
    assert fit > 0.6


def test_the_deltas_of_a_held_tone_vanish_beside_those_of_a_melody():
    tone, song = (np.exp(describe(samples, RATE)["timbre_speed"][1:]) for samples in (_tone(440, 10), _song(10)))

    assert tone.max() < 0.3 < song.min()


def test_a_rising_level_has_the_slope_that_it_rises_with():
    # −60 to −20 dB in 10 s: .08 dB a frame in all 40 bands, and c0 is their sum by √(1/40): .08 · √40.
    rise = 10 ** (-3 + 2 * _time(10) / 10) * np.random.default_rng(0).normal(size=10 * RATE)
    held = _noise(10)

    rising, still = (np.exp(2 * describe(np.float32(x), RATE)["timbre_speed"][0]) for x in (rise, held))

    assert rising - still == pytest.approx(0.08**2 * 40, rel=0.15)


def test_noise_is_flat_and_a_tone_is_not():
    flatness = slice(4, 5)
    # The mean logarithm of an exponentially distributed power lies γ below the logarithm of its mean: −2.51 dB.
    assert describe(_noise(), RATE)["shape"][flatness] == pytest.approx(-10 * np.euler_gamma / np.log(10), abs=0.1)
    assert describe(_tone(440), RATE)["shape"][flatness] < -40


def test_a_tone_crosses_zero_twice_a_period_and_its_centroid_is_its_pitch():
    features = describe(_tone(2000), RATE)

    assert features["shape"][6] == pytest.approx(2 * 2000 / RATE, rel=0.01)
    assert features["brightness"][0] == pytest.approx(1.0, abs=0.05)  # octaves above 1 kHz


def test_half_a_silent_file_is_half_silent():
    speech, music, silence = describe(np.r_[_tone(440, 6), np.zeros(6 * RATE, np.float32)], RATE)["content"]

    assert silence == 0.5
    assert speech + music <= 0.5


def test_chords_are_music_and_noise_is_neither_speech_nor_music():
    cadence = np.concatenate([_chord(*notes, seconds=2) for notes in ((C, E, G), (F, A, C), (G, B, D), (C, E, G))])

    assert describe(cadence, RATE)["content"].tolist() == [0, 1, 0]
    assert describe(_noise(8), RATE)["content"].tolist() == [0, 0, 0]


def test_syllables_of_buzz_and_hiss_with_pauses_count_as_speech():
    """Four syllables a second, a vowel of gliding harmonics after a hiss, and a pause after every fourth."""
    time, random = _time(10), np.random.default_rng(0)
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.9 * time)) / RATE
    formant = 500 + 400 * np.sin(2 * np.pi * 3.1 * time)
    vowel = sum(np.exp(-np.abs(120 * k - formant) / 300) * np.sin(k * phase) for k in range(1, 30))
    within = (4 * time) % 1
    talk = np.where(
        within < 0.3, 0.15 * np.diff(random.normal(size=len(time)), prepend=0), 0.3 * vowel * (within < 0.75)
    )

    speech, music, _ = describe((talk * ((time % 1.25) < 1.0)).astype(np.float32), RATE)["content"]

    assert speech > 0.7 > music


def _ranges(samples: NDArray[np.float32], seconds: int, context: float) -> list[Sound]:
    """What a decode of each range hands out."""
    width, margin = seconds * RATE, round(context * RATE)
    sounds = []
    for first in range(0, len(samples), width):
        before, after = min(margin, first), max(0, min(margin, len(samples) - first - width))
        sounds.append(Sound(samples[first - before : first + width + after], RATE, first / RATE, before, after))
    return sounds


def test_ranges_add_up_to_the_whole():
    song, encoder = _song(60), LibrosaEncoder(RATE)

    (whole,) = encoder.summarise([Sound(song, RATE)])
    parts = encoder.summarise(_ranges(song, 20, context=2))

    np.testing.assert_allclose(sum(part.total for part in parts), whole.total, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.concatenate([part.segments for part in parts]), whole.segments, atol=1e-6)
    assert np.concatenate([part.starts for part in parts]).tolist() == whole.starts.tolist() == [0, 10, 20, 30, 40, 50]


def test_ranges_without_context_still_count_every_frame_and_second_once():
    song, encoder = _song(60), LibrosaEncoder(RATE)

    (whole,) = encoder.summarise([Sound(song, RATE)])
    total = sum(part.total for part in encoder.summarise(_ranges(song, 20, context=0)))

    for name in ("frames", "seconds", "level", "silent_seconds"):
        np.testing.assert_allclose(total[TOTALS[name]], whole.total[TOTALS[name]], rtol=1e-9)
    assert total[TOTALS["frames"]] == 60 * 50 and total[TOTALS["seconds"]] == 60
    assert (encoder.vectors(total[None]) @ encoder.vectors(whole.total[None]).T).item() > 0.999


def test_what_lies_beyond_the_context_changes_nothing():
    song = _song(30)
    loud = song.copy()
    seam = round((10 - CONTEXT_SECONDS) * RATE)
    loud[:seam] = 0.9

    before, after = 10 * RATE, 10 * RATE
    one, other = LibrosaEncoder(RATE).summarise([Sound(samples, RATE, 10.0, before, after) for samples in (song, loud)])

    np.testing.assert_array_equal(one.total, other.total)


def test_a_segment_is_the_vector_of_its_ten_seconds():
    song, encoder = _song(20), LibrosaEncoder(RATE)

    (summary,) = encoder.summarise([Sound(song, RATE)])

    alone = encoder.encode([Sound(song[9 * RATE :], RATE, 10.0, before=RATE)])[0]
    np.testing.assert_array_equal(summary.segments[1], alone)
    np.testing.assert_allclose(np.linalg.norm(summary.segments, axis=1), 1, atol=1e-6)


def test_windows_lie_on_the_grid_of_the_file_and_begin_no_earlier_than_the_sound():
    (summary,) = LibrosaEncoder(RATE).summarise([Sound(_noise(12), RATE, start=13.0)])

    assert summary.starts.tolist() == [13.0, 20.0]


def test_a_silent_window_has_no_segment_but_counts_as_silence():
    sound = Sound(np.r_[_tone(440, 10), np.zeros(10 * RATE, np.float32), _tone(220, 10)], RATE)

    (summary,) = LibrosaEncoder(RATE).summarise([sound])

    assert summary.starts.tolist() == [0, 20]
    assert summary.total[TOTALS["silent_seconds"]] == 10


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(_tone(440, 0.09), id="below a tenth of a second"),
        pytest.param(_tone(440, 1, loudness=0.9e-4), id="peak under -80 dB"),
        pytest.param(np.zeros(0, np.float32), id="nothing"),
        pytest.param(np.full(RATE, np.nan, np.float32), id="no number at all"),
    ],
)
def test_a_sound_without_content_is_absent(samples):
    encoder = LibrosaEncoder(RATE)

    assert encoder.summarise([Sound(samples, RATE)]) == [None]
    assert not encoder.encode([Sound(samples, RATE)]).any()


def test_only_the_own_part_makes_a_range_present():
    silent = Sound(np.r_[_tone(440, 2), np.zeros(10 * RATE, np.float32)], RATE, 10.0, before=2 * RATE)

    assert LibrosaEncoder(RATE).summarise([silent]) == [None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_counts_as_silence(bad):
    broken, mended = _song(5), _song(5)
    broken[4000], mended[4000] = bad, 0

    vectors = LibrosaEncoder(RATE).encode([Sound(broken, RATE), Sound(mended, RATE)])

    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_one_sample_over_a_window_is_no_window_of_its_own():
    starts = [start for start, _, _ in descriptors.windows(Sound(_noise(10.001), RATE))]

    assert starts == [0.0, 10.0]  # its first frame's centre is the first sample


@pytest.mark.parametrize(
    ("clip", "kind"), [("art-critic.mp4", 0), ("nasa_13013.mp4", 0), ("chaplin.mp4", 1), ("bee.mp4", None)]
)
def test_real_speech_music_and_rustling_are_told_apart(clip, kind):
    """The labels are a voice detector's (10.2 of 13.6 s, 10.9 of 13.1 s, none, none) and the film's piano."""
    path = Path(__file__).parents[3] / "shared" / "data" / "media" / clip
    if not path.is_file():
        pytest.skip("the real clips are not beside the repository")

    shares = describe(_decoded(path), RATE)["content"]

    assert shares.max() < 0.3 if kind is None else shares[kind] > 0.7


def _decoded(path: Path) -> NDArray[np.float32]:
    resampler = av.AudioResampler("fltp", "mono", RATE)
    with av.open(str(path)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
