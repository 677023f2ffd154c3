"""Loudness of signals whose loudness is known: EBU Tech 3341 (test signals 1–6) and ITU-R BS.1770-4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from avrec_spark.media.loudness import BINS, CONTEXT_SECONDS, TOLERANCE, LoudnessMeter, integrated, k_weighting
from avrec_spark.media.statistics import Statistics

RATE = 48_000


def _sine(parts: Sequence[tuple[float, float]], rate: int = RATE, pitch: float = 1000.0) -> NDArray[np.float32]:
    """A sine whose peak is at each level (dBFS) for as many seconds."""
    envelope = np.concatenate([np.full(round(seconds * rate), 10 ** (level / 20)) for level, seconds in parts])
    return (envelope * np.sin(2 * np.pi * pitch * np.arange(len(envelope)) / rate)).astype(np.float32)


def _stereo(parts: Sequence[tuple[float, float]], rate: int = RATE) -> NDArray[np.float32]:
    return np.stack([_sine(parts, rate)] * 2)


def _measure(samples: NDArray[np.float32], rate: int = RATE, piece: int = 1024, **place: object) -> LoudnessMeter:
    meter = LoudnessMeter(rate, len(samples), **place)  # type: ignore[arg-type]
    for begin in range(0, samples.shape[1], piece):
        meter.add(samples[:, begin : begin + piece])
    return meter


def _loudness(meter: LoudnessMeter) -> float | None:
    return integrated(meter.counts, meter.powers)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([(-23, 20)], -23.0, id="case 1"),
        pytest.param([(-33, 20)], -33.0, id="case 2"),
        pytest.param([(-36, 10), (-23, 60), (-36, 10)], -23.0, id="case 3, relative gate"),
        pytest.param([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23.0, id="case 4, absolute gate"),
        pytest.param([(-26, 20), (-20, 20.1), (-26, 20)], -23.0, id="case 5"),
    ],
)
def test_the_ebu_test_signals_measure_what_they_should(parts, expected):
    assert _loudness(_measure(_stereo(parts))) == pytest.approx(expected, abs=0.1)


def test_surround_channels_weigh_more_and_the_low_frequency_channel_nothing():
    left, centre, surround, low = (_sine([(level, 20)]) for level in (-28, -24, -30, -10))

    meter = _measure(np.stack([left, left, centre, low, surround, surround]))

    assert _loudness(meter) == pytest.approx(-23.0, abs=0.1)  # case 6


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000])
def test_the_rate_does_not_matter(rate):
    assert _loudness(_measure(_stereo([(-23, 20)], rate), rate)) == pytest.approx(-23.0, abs=0.1)


def test_the_filter_is_that_of_the_standard_at_48_khz():
    expected = [  # BS.1770-4, tables 1 and 2
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose(k_weighting(48_000), expected, atol=1e-7)


def test_one_channel_is_three_decibels_below_two():
    stereo = _stereo([(-20, 5)])

    assert _loudness(_measure(stereo)) - _loudness(_measure(stereo[:1])) == pytest.approx(10 * np.log10(2), abs=0.01)


def test_silence_has_no_loudness_and_all_of_its_blocks_are_silent():
    meter = _measure(np.zeros((2, 3 * RATE), np.float32))

    assert _loudness(meter) is None
    assert (meter.blocks, meter.silent_blocks) == (30, 30)


def test_silent_blocks_are_those_below_minus_sixty():
    meter = _measure(_stereo([(-55, 2), (-60, 3), (-20, 5)]))  # a sine's RMS is 3 dB below its peak

    assert (meter.blocks, meter.silent_blocks) == (100, 30)


def test_the_size_of_the_pieces_does_not_matter():
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 3 * RATE)).astype(np.float32)
    one, other = _measure(samples, piece=777), _measure(samples, piece=3 * RATE)

    np.testing.assert_array_equal(one.counts, other.counts)
    np.testing.assert_allclose(one.powers, other.powers, rtol=1e-9)


def test_gating_blocks_last_400_ms_and_begin_every_100_ms():
    meter = _measure(_stereo([(-20, 1.05)]))

    assert (meter.blocks, meter.counts.sum()) == (10, 7)


@pytest.mark.parametrize("rate", [22_050, 11_025])
def test_ranges_with_context_add_up_to_the_whole(rate):
    random = np.random.default_rng(1)
    levels = [(float(random.uniform(-45, -10)), float(random.uniform(0.2, 2.0))) for _ in range(30)]
    samples = _stereo([*levels, (-90, 1.5)], rate)
    seconds = samples.shape[1] / rate

    whole, added = _measure(samples, rate), Statistics()
    for start in np.arange(0.0, seconds, 10.0):
        first = max(0, round((start - CONTEXT_SECONDS) * rate))
        piece = samples[:, first : round((start + 10 + CONTEXT_SECONDS) * rate)]
        part = _measure(piece, rate, start=first / rate, own=(start, start + 10))
        added += Statistics(0, 0, 0, part.blocks, part.silent_blocks, part.counts, part.powers)

    assert (added.blocks, added.silent_blocks) == (whole.blocks, whole.silent_blocks)
    assert added.loudness_counts.sum() == pytest.approx(whole.counts.sum(), abs=2)  # at the gate's edge
    assert added.loudness == pytest.approx(_loudness(whole), abs=TOLERANCE)


def test_a_track_that_begins_late_keeps_to_the_files_grid_of_100_ms():
    meter = _measure(_stereo([(-20, 1.0)]), start=0.03)

    assert meter.blocks == 9  # 0.1 … 1.0; what lies before and after is not whole


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_does_not_poison_what_follows(bad):
    samples = _stereo([(-23, 20)])
    samples[:, 5000] = bad

    meter = _measure(samples)

    assert np.isfinite(meter.powers).all()
    assert _loudness(meter) == pytest.approx(-23.0, abs=0.1)


def test_a_sound_beyond_full_scale_lands_in_the_last_bin():
    meter = _measure(_stereo([(30, 1)]))

    assert np.flatnonzero(meter.counts).tolist() == [BINS - 1]
    assert _loudness(meter) == pytest.approx(30.0, abs=0.1)
