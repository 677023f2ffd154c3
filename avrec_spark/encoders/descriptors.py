"""Short-time descriptors of sound, summed over windows of 10 s, so that sums of windows and of ranges add up.

Everything lies on grids that begin at time 0 of the file: 50 frames a second, windows of 10 s, and seconds. A frame
counts in the window that its centre lies in; windows look `CONTEXT_SECONDS` beyond themselves for what surrounds a
frame and for changes over time. So the total of a window is the same, to the bit, in whichever range it is computed, as
long as the range brings that context along.

Sources: Davis & Mermelstein (1980) for MFCC; de Cheveigné & Kawahara, YIN (2002), for pitch; Grosche, Müller & Kurth,
Cyclic tempogram (2010), for the autocorrelation of onsets in windows; Scheirer & Slaney, Construction and evaluation of
a robust multifeature speech/music discriminator (ICASSP 1997), for the descriptors that tell speech from music.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from avrec_spark.encoders.layout import slices
from avrec_spark.media.records import Sound

Floats = NDArray[np.floating[Any]]

FRAMES_A_SECOND = 50
WINDOW_SECONDS = 10
CONTEXT_SECONDS = 0.75
BANDS = 40
CEPSTRA = 20
# Lags of the onset autocorrelation, in frames: two beats at 45 a minute are 133.
LAGS = 140
# Pitch is counted in bins of half a semitone from LOWEST_PITCH Hz on.
LOWEST_PITCH = 50.0
BINS_AN_OCTAVE = 24
PITCH_BINS = 128
# In the order of `_shape`.
SHAPES = ("centroid", "bandwidth", "rolloff", "flatness", "crossings", "flux")
SILENCE_DB = -60.0
_LOWEST_DB = -100.0
_CONTEXT_FRAMES = 25
_PITCH_EVERY = 2
_DELTA_FRAMES = 9
_ROLLOFF = 0.85
_FAINTEST_CHROMA = 1e-4
_LEAST_ONSET_DB = 1.0
_ONSET_RANGE_DB = 70.0
# Speech or music: flux weighs this much beside the share of quiet frames; above the threshold it is speech.
_FLUX_WEIGHT, _SPEECH = 5.2, 0.67
_NOISE_FLATNESS_DB = -15.0
_TINY = 1e-12


TOTALS = slices(
    {
        "frames": 1,
        "cepstra": CEPSTRA,
        "cepstra_squares": CEPSTRA,
        "delta_squares": CEPSTRA,
        "acceleration_squares": CEPSTRA,
        "bands": BANDS,
        "band_squares": BANDS,
        "chroma": 12,
        "chroma_squares": 12,
        "level": 1,
        "level_squares": 1,
        "weight": 1,  # of frames in what follows: their magnitude, so that silence has no shape
        "shape": len(SHAPES),
        "shape_squares": len(SHAPES),
        "pitch": PITCH_BINS,
        "onsets": 1,
        "rhythm": LAGS,  # autocorrelation of the onset envelope
        "seconds": 1,
        "silent_seconds": 1,
        "speech_seconds": 1,
        "music_seconds": 1,
    }
)
TOTAL = max(block.stop for block in TOTALS.values())


def windows(sound: Sound) -> Iterator[tuple[float, NDArray[np.float32], NDArray[np.float64]]]:
    """Start in seconds, own samples and total float64[TOTAL] of each window of 10 s that the sound has frames in."""
    samples = np.asarray(sound.samples, np.float32)
    if not np.isfinite(samples.sum()):
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    own_start = round(sound.start * sound.rate)
    own_stop, offset = own_start + len(sound), own_start - sound.before
    width, context = WINDOW_SECONDS * sound.rate, round(CONTEXT_SECONDS * sound.rate)
    for window in range(own_start // width, -(-own_stop // width)):
        start, stop = max(window * width, own_start), min((window + 1) * width, own_stop)
        first, last = max(start - context, offset), min(stop + context, offset + len(samples))
        frames = _Frames(samples[first - offset : last - offset], sound.rate, first, (start, stop))
        if frames.own.stop > frames.own.start:
            yield start / sound.rate, samples[start - offset : stop - offset], _total(frames)


class _Frames:
    """The frames of one window and a few on each side: numbers of frames, and which of them are the window's own.

    `first` is the number of the first sample in the file, `own_samples` where the window begins and ends.
    """

    def __init__(self, samples: NDArray[np.float32], rate: int, first: int, own_samples: tuple[int, int]) -> None:
        self.rate = rate
        self.length = frame_length(rate)
        stop = len(samples)
        numbers = np.arange(first * FRAMES_A_SECOND // rate, (first + stop) * FRAMES_A_SECOND // rate + 2)
        centres = _sample(numbers, rate)
        inside = np.flatnonzero((centres >= first) & (centres < first + stop))
        numbers, centres = numbers[inside], centres[inside]
        own = np.flatnonzero((centres >= own_samples[0]) & (centres < own_samples[1]))
        begin, end = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
        kept = slice(max(0, begin - _CONTEXT_FRAMES), end + _CONTEXT_FRAMES)
        self.numbers = numbers[kept]
        self.own = slice(begin - kept.start, end - kept.start)
        centres = centres[kept] - first
        if len(samples) < self.length:
            samples = np.pad(samples, (0, self.length - len(samples)))
        # At the ends of the file the nearest whole frame stands in: padding would sound like an onset.
        firsts = np.clip(centres - self.length // 2, 0, len(samples) - self.length)
        self.waves = sliding_window_view(samples, self.length)[firsts]
        stop = min(int(_sample(self.numbers[-1:] + 1, rate).max(initial=0)) - first, stop)
        self._samples, self._edges, self._lengths = samples[:stop], centres, np.diff(centres, append=stop)

    def mean(self, values: Floats) -> Floats:
        """Mean of a value a sample over the 20 ms from each frame's centre on: frames and seconds share none."""
        return np.asarray(np.add.reduceat(values, self._edges, dtype=np.float64) / self._lengths)

    def power(self) -> Floats:
        return self.mean(np.square(self._samples))

    def crossings(self) -> Floats:
        """Share of the samples at which the sign changes."""
        below = np.signbit(self._samples)
        return self.mean(np.diff(below, prepend=below[:1]).astype(np.float32))


def frame_length(rate: int) -> int:
    """Samples a frame: the power of two nearest to 93 ms.

    >>> frame_length(22_050), frame_length(48_000)
    (2048, 4096)
    """
    return int(2 ** round(np.log2(0.093 * rate)))


def _sample(frames: Floats | NDArray[np.int64], rate: int) -> NDArray[np.int64]:
    return np.asarray(np.floor(frames * rate / FRAMES_A_SECOND + 0.5), np.int64)


def _total(frames: _Frames) -> NDArray[np.float64]:
    import librosa
    import scipy.fft

    own = frames.own
    filters = _filters(frames.rate)
    spectrum = scipy.fft.rfft(frames.waves * filters["window"], axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    mel_power = power @ filters["mel"]
    mel = decibels(mel_power)
    cepstra = scipy.fft.dct(mel, axis=1, norm="ortho")[:, :CEPSTRA]
    delta, acceleration = (
        librosa.feature.delta(cepstra, width=_DELTA_FRAMES, order=order, axis=0, mode="nearest")[own]
        for order in (1, 2)
    )
    chroma = power[own] @ filters["chroma"]
    chroma /= chroma.max(axis=1, keepdims=True) + _FAINTEST_CHROMA
    sound_power = frames.power()
    shape, weight = _shape(power, filters, frames.crossings(), _flux(np.sqrt(mel_power)))
    kinds = _kinds(frames, sound_power, dict(zip(SHAPES, shape.T, strict=True)))
    onsets, rhythm = _rhythm(mel, own)

    total = np.zeros(TOTAL)
    cepstra, bands, shape, weight, level = cepstra[own], mel[own], shape[own], weight[own], decibels(sound_power[own])
    for name, value in {
        "frames": len(level),
        "cepstra": cepstra.sum(axis=0, dtype=float),
        "cepstra_squares": np.square(cepstra).sum(axis=0, dtype=float),
        "delta_squares": np.square(delta).sum(axis=0, dtype=float),
        "acceleration_squares": np.square(acceleration).sum(axis=0, dtype=float),
        "bands": bands.sum(axis=0, dtype=float),
        "band_squares": np.square(bands).sum(axis=0, dtype=float),
        "chroma": chroma.sum(axis=0, dtype=float),
        "chroma_squares": np.square(chroma).sum(axis=0, dtype=float),
        "level": level.sum(),
        "level_squares": np.square(level).sum(),
        "weight": weight.sum(),
        "shape": weight @ shape,
        "shape_squares": weight @ np.square(shape),
        "pitch": _pitch(frames, sound_power),
        "onsets": onsets,
        "rhythm": rhythm,
        **kinds,
    }.items():
        total[TOTALS[name]] = value
    return total


@lru_cache(maxsize=4)
def _filters(rate: int) -> dict[str, Floats]:
    from librosa.filters import chroma, get_window, mel

    length = frame_length(rate)
    kilohertz = np.fft.rfftfreq(length, 1000.0 / rate)
    return {
        "window": get_window("hann", length).astype(np.float32),
        "mel": np.ascontiguousarray(mel(sr=rate, n_fft=length, n_mels=BANDS).T),
        "chroma": np.ascontiguousarray(chroma(sr=rate, n_fft=length, tuning=0.0).T),
        "moments": np.stack([kilohertz**0, kilohertz, kilohertz**2], axis=1).astype(np.float32),
        "kilohertz": kilohertz,
    }


def decibels(power: Floats) -> Floats:
    """10 log₁₀ of the power, at least −100."""
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (_LOWEST_DB / 10))))


def _flux(amplitudes: Floats) -> Floats:
    """How much of the mel spectrum moves to other bands from one frame to the next, 0 … 1."""
    shares = amplitudes / (amplitudes.sum(axis=1, keepdims=True) + _TINY)
    return np.asarray(0.5 * np.abs(np.diff(shares, axis=0, prepend=shares[:1])).sum(axis=1))


def _shape(power: Floats, filters: dict[str, Floats], crossings: Floats, flux: Floats) -> tuple[Floats, Floats]:
    """float64[frames, SHAPES] and the frames' weights. Centroid, bandwidth and roll-off in octaves above 1 kHz,
    flatness in dB, crossings a sample, flux as a share."""
    magnitude = np.sqrt(power)
    weight, first, second = (magnitude @ filters["moments"]).astype(float).T
    centroid = first / (weight + _TINY)
    bandwidth = np.sqrt(np.maximum(second / (weight + _TINY) - centroid**2, 0.0))
    cumulated = np.cumsum(magnitude, axis=1)
    rolloff = filters["kilohertz"][(cumulated < _ROLLOFF * cumulated[:, -1:]).sum(axis=1)]
    mean_log = np.log10(np.maximum(power, 10.0 ** (_LOWEST_DB / 10))).mean(axis=1, dtype=float)
    flatness = 10.0 * mean_log - decibels(power.mean(axis=1, dtype=float))
    octaves = np.log2(np.maximum(np.stack([centroid, bandwidth, rolloff], axis=1), 0.05))
    return np.concatenate([octaves, np.stack([flatness, crossings, flux], axis=1)], axis=1), weight


def _pitch(frames: _Frames, power: Floats) -> Floats:
    """Histogram of YIN's fundamental in steps of half a semitone. A frame counts by its level, from 0 at −60 dB to 1 at
    −20 dB and above: silence has no pitch, and a loud beat must not drown the melody over it."""
    import librosa

    chosen = np.arange(len(frames.numbers))[frames.own]
    chosen = chosen[frames.numbers[chosen] % _PITCH_EVERY == 0]
    if not len(chosen):
        return np.zeros(PITCH_BINS)
    highest = min(2000.0, frames.rate / 4)
    size = frames.length
    fundamental = librosa.yin(
        frames.waves[chosen],
        fmin=LOWEST_PITCH,
        fmax=highest,
        sr=frames.rate,
        frame_length=size,
        hop_length=size,
        center=False,
    )[:, 0]
    bins = np.floor(BINS_AN_OCTAVE * np.log2(np.maximum(fundamental, 1.0) / LOWEST_PITCH))
    weights = np.clip((decibels(power[chosen]) - SILENCE_DB) / 40.0, 0.0, 1.0)
    counts = np.bincount(np.clip(bins, 0, PITCH_BINS - 1).astype(int), weights, minlength=PITCH_BINS)
    return np.asarray(counts, float)


def _kinds(frames: _Frames, power: Floats, shape: Mapping[str, Floats]) -> dict[str, int]:
    """Seconds by what is heard in them, each judged by the two seconds around it; those of flat noise are none.

    Speech changes its spectrum faster than most music and falls quiet between syllables (Scheirer & Slaney: flux and
    the share of frames below half the mean level). The thresholds were set on some 150 s of clips at 22,050 Hz: they
    are a coarse guess, which takes fast percussive music for speech and speech over music for music.
    """
    counts = {"seconds": 0, "silent_seconds": 0, "speech_seconds": 0, "music_seconds": 0}
    second_of = frames.numbers // FRAMES_A_SECOND
    amplitude = np.sqrt(power)
    for second, length in zip(*np.unique(second_of[frames.own], return_counts=True), strict=True):
        if length < FRAMES_A_SECOND // 2:
            continue
        counts["seconds"] += 1
        if decibels(power[second_of == second].mean()) < SILENCE_DB:
            counts["silent_seconds"] += 1
            continue
        middle = (second + 0.5) * FRAMES_A_SECOND
        around = slice(*np.searchsorted(frames.numbers, [middle - FRAMES_A_SECOND, middle + FRAMES_A_SECOND]).tolist())
        level = amplitude[around]
        if np.average(shape["flatness"][around], weights=level) > _NOISE_FLATNESS_DB:
            continue
        quiet = np.mean(level < 0.5 * level.mean())
        is_speech = quiet + _FLUX_WEIGHT * np.median(shape["flux"][around]) > _SPEECH
        counts["speech_seconds" if is_speech else "music_seconds"] += 1
    return counts


def _rhythm(mel: Floats, own: slice) -> tuple[int, Floats]:
    """Onsets, and the autocorrelation of the onset envelope, the mean rise of the bands in dB."""
    mel = np.maximum(mel, mel.max() - _ONSET_RANGE_DB)  # what leaks into empty bands has a rhythm of its own
    envelope = np.maximum(np.diff(mel, axis=0, prepend=mel[:1]), 0.0).mean(axis=1, dtype=float)
    around = np.pad(envelope, 1)
    is_peak = (envelope > around[:-2]) & (envelope >= around[2:])
    envelope = envelope[own]
    onsets = is_peak[own] & (envelope > max(envelope.mean() + envelope.std(), _LEAST_ONSET_DB))
    centred = envelope - envelope.mean()
    spectrum = np.fft.rfft(centred, 2 * WINDOW_SECONDS * FRAMES_A_SECOND)
    return int(onsets.sum()), np.fft.irfft(np.abs(spectrum) ** 2)[:LAGS]
