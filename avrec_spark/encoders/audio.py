"""Audio features: statistics of librosa's short-time descriptors, laid out so that each can be read back.

Every feature is standardised with fixed constants (no statistics of the catalogue enter, so that a vector never changes
because its neighbours do), clipped to ±3 and divided by the root of its block's width: blocks weigh alike whatever
their number of features. The last step scales the vector to length 1. `LAYOUT` says where each block lies.

| block | features | meaning |
|---|---|---|
| timbre | 20 | mean of the mel-frequency cepstral coefficients 0 … 19 |
| timbre_variation | 20 | their standard deviation over time |
| spectrum | 40 | mean level of 40 mel bands in dB, relative to the mean of all bands |
| spectrum_variation | 40 | standard deviation of each band's level over time |
| harmony | 12 | mean chroma, C … B |
| harmony_variation | 12 | standard deviation of chroma |
| loudness | 2 | mean and standard deviation of the RMS level in dB below full scale |
| brightness | 2 | mean and standard deviation of the spectral centroid, octaves above 1 kHz |
| pitch | 2 | median fundamental (YIN), octaves above 220 Hz, and its interquartile range |
| tempo | 2 | octaves above 120 beats a minute, and onsets a second |
| rhythm | 12 | autocorrelation of the onset envelope at 12 tempi, 45 … 220 beats a minute, evenly in octaves |

Sources: Davis & Mermelstein (1980) for MFCC; de Cheveigné & Kawahara, YIN (2002); Ellis, Beat tracking by dynamic
programming (2007), for the tempo prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders.port import Encoder

Floats = NDArray[np.floating[Any]]

_FRAME = 2048
_HOP = 512
_BANDS = 40
_LOWEST_DB = -100.0
_SLOWEST, _FASTEST = 45.0, 220.0
_CLIP = 3.0
_SHORTEST_SECONDS = 0.1
_SILENCE = 1e-4  # peak; 80 dB below full scale


class _Block(NamedTuple):
    """Width, and the centre and scale of each feature: one number for all of them or one each."""

    width: int
    centre: float | tuple[float, ...]
    scale: float | tuple[float, ...]


# Centres and scales are rounded means and deviations over a mixed set: nature, street, cartoon, film and plain tones.
_BLOCKS = {
    "timbre": _Block(20, (-250.0, 80.0, *[0.0] * 18), (90.0, 45.0, *[round(40 * k**-0.6, 1) for k in range(2, 20)])),
    "timbre_variation": _Block(20, (80.0, 25.0, 15.0, 10.0, *[6.0] * 16), (50.0, 15.0, 10.0, 7.0, *[4.0] * 16)),
    "spectrum": _Block(_BANDS, 0.0, 15.0),
    "spectrum_variation": _Block(_BANDS, 14.0, 9.0),
    "harmony": _Block(12, 0.4, 0.22),
    "harmony_variation": _Block(12, 0.2, 0.1),
    "loudness": _Block(2, (-36.0, 8.0), (14.0, 6.0)),
    "brightness": _Block(2, (0.5, 0.6), (1.0, 0.4)),
    "pitch": _Block(2, (0.0, 1.0), (1.2, 1.0)),
    "tempo": _Block(2, (-0.1, 1.6), (0.5, 1.2)),
    "rhythm": _Block(12, 0.08, 0.2),
}


def _layout() -> dict[str, slice]:
    ends = np.cumsum([block.width for block in _BLOCKS.values()]).tolist()
    return {name: slice(end - block.width, end) for (name, block), end in zip(_BLOCKS.items(), ends, strict=True)}


LAYOUT: Mapping[str, slice] = MappingProxyType(_layout())


class LibrosaEncoder(Encoder[NDArray[np.float32]]):
    """One vector a track. A track below 0.1 s, or whose peak stays under −80 dB, counts as absent: a row of zeros."""

    name = "librosa"
    version = "1"
    modality = "audio"
    dimension = sum(block.width for block in _BLOCKS.values())

    def __init__(self, sample_rate: int, max_audio_seconds: float) -> None:
        super().__init__({"sample_rate": sample_rate, "max_audio_seconds": max_audio_seconds, "bands": _BANDS})
        self._rate = sample_rate

    def is_empty(self, value: NDArray[np.float32]) -> bool:
        return len(value) < _SHORTEST_SECONDS * self._rate or not np.abs(value).max() >= _SILENCE

    def _encode(self, batch: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack([_standardised(describe(samples, self._rate)) for samples in batch])


def describe(samples: NDArray[np.float32], rate: int) -> dict[str, Floats]:
    """The features of one track before scaling, by block, in the units of the table above."""
    import librosa

    samples = np.pad(samples, (0, max(0, _FRAME - len(samples))))
    magnitude = np.abs(librosa.stft(samples, n_fft=_FRAME, hop_length=_HOP))
    power = magnitude**2
    mel = _decibels(librosa.feature.melspectrogram(S=power, sr=rate, n_mels=_BANDS))
    mfcc = librosa.feature.mfcc(S=mel, n_mfcc=20)
    chroma = librosa.feature.chroma_stft(S=power, sr=rate, tuning=0.0)
    level = _decibels(librosa.feature.rms(y=samples, frame_length=_FRAME, hop_length=_HOP)[0] ** 2)
    octaves, onset_rate, rhythm = _tempo(mel, rate / _HOP)
    return {
        "timbre": mfcc.mean(axis=1),
        "timbre_variation": mfcc.std(axis=1),
        "spectrum": mel.mean(axis=1) - mel.mean(),
        "spectrum_variation": mel.std(axis=1),
        "harmony": chroma.mean(axis=1),
        "harmony_variation": chroma.std(axis=1),
        "loudness": np.array([level.mean(), level.std()]),
        "brightness": _brightness(magnitude, rate),
        "pitch": _pitch(samples, rate),
        "tempo": np.array([octaves, onset_rate]),
        "rhythm": rhythm,
    }


def _decibels(power: Floats) -> Floats:
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (_LOWEST_DB / 10))))


def _brightness(magnitude: Floats, rate: int) -> Floats:
    """Mean and standard deviation of the centroid in octaves above 1 kHz; loud frames count more, silent ones not."""
    import librosa

    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=rate)[0]
    octaves = np.log2(np.maximum(centroid, 50.0) / 1000.0)
    weights = magnitude.sum(axis=0)
    mean = np.average(octaves, weights=weights)
    return np.array([mean, np.sqrt(np.average((octaves - mean) ** 2, weights=weights))])


def _pitch(samples: NDArray[np.float32], rate: int) -> Floats:
    """Median fundamental in octaves above 220 Hz, and its interquartile range, over the frames that sound."""
    import librosa

    hop = _FRAME // 2
    highest = min(2000.0, rate / 4)
    fundamental = librosa.yin(samples, fmin=50.0, fmax=highest, sr=rate, frame_length=_FRAME, hop_length=hop)
    level = librosa.feature.rms(y=samples, frame_length=_FRAME, hop_length=hop)[0]
    sounding = fundamental[level >= 0.05 * level.max()]
    low, middle, high = np.percentile(np.log2(sounding / 220.0), [25, 50, 75])
    return np.array([middle, high - low])


def _tempo(mel: Floats, frames_per_second: float) -> tuple[float, float, Floats]:
    """Octaves above 120 beats a minute, onsets a second, and the autocorrelation at twelve tempi."""
    envelope = np.maximum(np.diff(mel, axis=1, prepend=mel[:, :1]), 0.0).mean(axis=0)
    seconds = len(envelope) / frames_per_second
    threshold = envelope.mean() + envelope.std()
    inner = envelope[1:-1]
    onsets = np.sum((inner > envelope[:-2]) & (inner >= envelope[2:]) & (inner > threshold))

    centred = envelope - envelope.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(centred)]
    correlation = correlation / max(float(correlation[0]), 1e-9)

    tempi = np.geomspace(_SLOWEST, _FASTEST, 12 * 16)
    lags = 60.0 * frames_per_second / tempi
    strength = np.interp(lags, np.arange(len(correlation)), correlation, right=0.0)
    prior = np.exp(-0.5 * np.log2(tempi / 120.0) ** 2)
    octaves = float(np.log2(tempi[np.argmax(strength * prior)] / 120.0))
    return octaves, float(onsets / seconds), strength.reshape(12, 16).max(axis=1)


def _standardised(features: dict[str, Floats]) -> NDArray[np.float32]:
    blocks = [
        np.clip((features[name] - np.asarray(block.centre)) / np.asarray(block.scale), -_CLIP, _CLIP)
        / np.sqrt(block.width)
        for name, block in _BLOCKS.items()
    ]
    return np.asarray(np.concatenate(blocks), np.float32)
