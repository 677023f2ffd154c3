"""Audio features: statistics of short-time descriptors, laid out so that each can be read back.

`descriptors` adds the descriptors up over frames; here the sums become features, which `layout` standardises with fixed
constants and balances by block. `LAYOUT` says where each block lies.

| block | features | meaning |
|---|---|---|
| timbre | 20 | mean of the mel-frequency cepstral coefficients 0 … 19 |
| timbre_variation | 20 | their standard deviation over time |
| timbre_speed | 20 | root mean square of their slope a frame of 20 ms (delta), in natural logarithms |
| timbre_acceleration | 20 | the same of their curvature (delta-delta) |
| spectrum | 40 | mean level of 40 mel bands in dB, relative to the mean of all bands |
| spectrum_variation | 40 | standard deviation of each band's level over time |
| harmony | 12 | mean chroma, C … B |
| harmony_variation | 12 | standard deviation of chroma |
| key | 4 | best key on the circle of fifths (x, y; C lies towards 1, 0), the further out the better it fits; how much |
| | | better the best major key fits than the best minor one; how well the best key fits, −1 … 1 |
| loudness | 2 | mean and standard deviation of the RMS level in dB below full scale |
| brightness | 2 | mean and standard deviation of the spectral centroid, octaves above 1 kHz |
| shape | 10 | mean and standard deviation of bandwidth and 85 % roll-off (octaves above 1 kHz), flatness (dB), zero |
| | | crossings (a sample) and flux (share of the spectrum that moves in a frame) |
| pitch | 2 | median fundamental (YIN), octaves above 220 Hz, and its interquartile range |
| tempo | 3 | octaves above 120 beats a minute, strength of the beat (−1 … 1), and onsets a second |
| rhythm | 12 | autocorrelation of the onset envelope at 12 tempi, 45 … 220 beats a minute, evenly in octaves |
| content | 3 | share of the seconds with speech, with music and with silence; a coarse guess by fixed thresholds |

In brightness, shape and pitch loud frames count more and silent ones not. A minor key lies where its relative major
does.

Sources, beside those of `descriptors`: Krumhansl & Kessler (1982) for the profiles of keys; Ellis, Beat tracking by
dynamic programming (2007), for the prior of tempo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders import descriptors
from avrec_spark.encoders.descriptors import BANDS, FRAMES_A_SECOND, TOTALS
from avrec_spark.encoders.layout import Block, layout, standardised
from avrec_spark.encoders.port import Encoder, Summary, is_audible
from avrec_spark.media.records import Sound

Floats = NDArray[np.floating[Any]]

_SLOWEST, _FASTEST = 45.0, 220.0
_TINY = 1e-9
# How well each tone, counted from the tonic, was heard to fit a major and a minor key.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)

# Centres and scales are rounded means and deviations over a mixed set: nature, street, cartoon, film and plain tones.
_BLOCKS = {
    "timbre": Block(20, (-250.0, 80.0, *[0.0] * 18), (90.0, 45.0, *[round(40 * k**-0.6, 1) for k in range(2, 20)])),
    "timbre_variation": Block(20, (80.0, 25.0, 15.0, 10.0, *[6.0] * 16), (50.0, 15.0, 10.0, 7.0, *[4.0] * 16)),
    "timbre_speed": Block(
        20, (2.1, 0.8, 0.4, 0.2, *[round(0.2 - 0.042 * k, 2) for k in range(4, 20)]), (1.1, 1.0, 0.9, 0.9, *[0.75] * 16)
    ),
    "timbre_acceleration": Block(
        20,
        (1.3, 0.2, -0.1, -0.3, *[round(-0.4 - 0.036 * k, 2) for k in range(4, 20)]),
        (1.0, 0.9, 0.8, 0.7, *[0.6] * 16),
    ),
    "spectrum": Block(BANDS, 0.0, 15.0),
    "spectrum_variation": Block(BANDS, 14.0, 9.0),
    "harmony": Block(12, 0.4, 0.22),
    "harmony_variation": Block(12, 0.2, 0.1),
    "key": Block(4, (0.0, 0.0, 0.0, 0.5), (0.4, 0.4, 0.12, 0.2)),
    "loudness": Block(2, (-36.0, 8.0), (14.0, 6.0)),
    "brightness": Block(2, (0.8, 0.5), (1.0, 0.4)),
    "shape": Block(
        10,
        (0.8, 0.4, 1.8, 0.6, -27.0, 8.0, 0.16, 0.06, 0.09, 0.06),
        (1.0, 0.5, 1.2, 0.6, 22.0, 9.0, 0.13, 0.05, 0.04, 0.05),
    ),
    "pitch": Block(2, (-0.3, 1.0), (1.2, 1.0)),
    "tempo": Block(3, (-0.2, 0.3, 1.9), (0.5, 0.3, 1.3)),
    "rhythm": Block(12, 0.08, 0.2),
    "content": Block(3, (0.25, 0.4, 0.05), (0.4, 0.45, 0.2)),
}
LAYOUT = layout(_BLOCKS)


class LibrosaEncoder(Encoder[Sound]):
    """One vector a track, and one a window of 10 s. A track below 0.1 s, or whose peak stays under −80 dB, counts as
    absent, and such a window has no segment."""

    name = "librosa"
    version = "2"
    modality = "audio"
    dimension = sum(block.width for block in _BLOCKS.values())
    reads = "sound"
    segmented = True

    def __init__(self, sample_rate: int) -> None:
        super().__init__({"sample_rate": sample_rate})

    def is_empty(self, value: Sound) -> bool:
        return not is_audible(value.own, value.rate)

    def _summarise(self, batch: list[Sound]) -> list[Summary]:
        return [self._summary(sound) for sound in batch]

    def _summary(self, sound: Sound) -> Summary:
        total, starts, totals = np.zeros(descriptors.TOTAL), [], []
        for start, samples, part in descriptors.windows(sound):
            total += part
            if is_audible(samples, sound.rate):
                starts.append(start)
                totals.append(part)
        segments = self.vectors(np.stack(totals)) if totals else np.empty((0, self.dimension), np.float32)
        return Summary(total, segments, np.array(starts, float))

    def _vectors(self, totals: NDArray[np.float64]) -> NDArray[np.float32]:
        rows = [_features(total) for total in totals]
        return standardised({name: np.stack([row[name] for row in rows]) for name in _BLOCKS}, _BLOCKS)


def describe(samples: NDArray[np.float32], rate: int) -> dict[str, Floats]:
    """The features of one track before scaling, by block, in the units of the table above."""
    parts = [part for _, _, part in descriptors.windows(Sound(samples, rate))]
    return _features(np.sum(parts, axis=0))


def _features(total: NDArray[np.float64]) -> dict[str, Floats]:
    sums = {name: total[block] for name, block in TOTALS.items()}
    frames = max(float(sums["frames"][0]), 1.0)
    timbre, timbre_variation = _moments(sums["cepstra"], sums["cepstra_squares"], frames)
    bands, band_variation = _moments(sums["bands"], sums["band_squares"], frames)
    harmony, harmony_variation = _moments(sums["chroma"], sums["chroma_squares"], frames)
    level = _moments(sums["level"], sums["level_squares"], frames)
    shape = np.stack(_moments(sums["shape"], sums["shape_squares"], float(sums["weight"][0])), axis=1)
    octaves, strength, rhythm = _tempo(sums["rhythm"])
    seconds = np.concatenate([sums[f"{name}_seconds"] for name in ("speech", "music", "silent")])
    return {
        "timbre": timbre,
        "timbre_variation": timbre_variation,
        "timbre_speed": _log_root(sums["delta_squares"] / frames),
        "timbre_acceleration": _log_root(sums["acceleration_squares"] / frames),
        "spectrum": bands - bands.mean(),
        "spectrum_variation": band_variation,
        "harmony": harmony,
        "harmony_variation": harmony_variation,
        "key": _key(harmony),
        "loudness": np.concatenate(level),
        "brightness": shape[0],
        "shape": shape[1:].ravel(),
        "pitch": _pitch(sums["pitch"]),
        "tempo": np.array([octaves, strength, float(sums["onsets"][0]) * FRAMES_A_SECOND / frames]),
        "rhythm": rhythm,
        "content": seconds / max(float(sums["seconds"][0]), 1.0),
    }


def _moments(sums: Floats, squares: Floats, weight: float) -> tuple[Floats, Floats]:
    """Mean and standard deviation."""
    mean = sums / max(weight, _TINY)
    return mean, np.sqrt(np.maximum(squares / max(weight, _TINY) - mean**2, 0.0))


def _log_root(mean_square: Floats) -> Floats:
    return np.asarray(0.5 * np.log(mean_square + 1e-4))


def _key(chroma: Floats) -> Floats:
    """Place, mode and fit of the key whose profile correlates best with the chroma."""
    if not chroma.std() > _TINY:
        return np.zeros(4)
    keys = [np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)]
    fits = np.corrcoef(chroma, keys)[0, 1:].reshape(2, 12)
    mode, tonic = divmod(int(np.argmax(fits)), 12)
    angle = 2 * np.pi * 7 * (tonic + 3 * mode) / 12  # a fifth is seven semitones
    fit = float(fits.max())
    return np.array([fit * np.cos(angle), fit * np.sin(angle), fits[0].max() - fits[1].max(), fit])


def _pitch(histogram: Floats) -> Floats:
    """Median fundamental in octaves above 220 Hz, and its interquartile range."""
    if not histogram.sum() > 0:
        return np.zeros(2)
    shares = np.concatenate([[0.0], np.cumsum(histogram) / histogram.sum()])
    lowest = np.log2(descriptors.LOWEST_PITCH / 220.0)
    edges = lowest + np.arange(len(shares)) / descriptors.BINS_AN_OCTAVE
    low, middle, high = np.interp([0.25, 0.5, 0.75], shares, edges)
    return np.array([middle, high - low])


def _tempo(autocorrelation: Floats) -> tuple[float, float, Floats]:
    """Octaves above 120 beats a minute, the strength of that beat, and the autocorrelation at twelve tempi."""
    correlation = autocorrelation / max(float(autocorrelation[0]), _TINY)
    tempi = np.geomspace(_SLOWEST, _FASTEST, 12 * 16)
    lags = 60.0 * FRAMES_A_SECOND / tempi
    one = np.interp(lags, np.arange(len(correlation)), correlation)
    # A peak between two lags would lose against one that hits a lag; the second beat halves the step between lags.
    blunt = np.convolve(correlation, (0.25, 0.5, 0.25), "same")
    comb = sum(np.interp(beats * lags, np.arange(len(blunt)), blunt) for beats in (1, 2))
    prior = np.exp(-0.5 * np.log2(tempi / 120.0) ** 2)
    best = int(np.argmax(comb * prior))
    return float(np.log2(tempi[best] / 120.0)), float(one[best]), one.reshape(12, 16).max(axis=1)
