"""The sound of a clip: a pentatonic melody in the planted register over a beat at the planted tempo, and a voice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avrec_spark.world import voice
from avrec_spark.world.factors import PITCHES, TEMPOS, Clip

SAMPLE_RATE = 22_050
# Semitones above the root; the root comes most often and is the dominant pitch.
_SCALE = (0, 2, 4, 7, 9)
# Around a keyword, so that it is heard for a word; and how much of the music stays while somebody speaks.
_SENTENCE = "Today we will talk about the {}."
_DUCKED = 0.05


def waveform(clip: Clip) -> NDArray[np.float32]:
    """float32[samples], mono at 22,050 Hz, between −1 and 1."""
    generator = np.random.default_rng([clip.seed, 2])
    samples = round(clip.seconds * SAMPLE_RATE)
    tone = np.zeros(samples + SAMPLE_RATE, np.float64)
    beat = 60.0 / TEMPOS[clip.tempo]
    for number in range(int(clip.seconds / beat) + 1):
        start = int(number * beat * SAMPLE_RATE)
        _add(tone, start, 0.5 * _drum(generator))
        step = 0 if number % 2 == 0 else int(generator.choice(_SCALE))
        _add(tone, start, 0.45 * _note(PITCHES[clip.pitch] * 2 ** (step / 12), beat))
    music = 0.8 * tone[:samples] / max(np.abs(tone[:samples]).max(), 1e-9)
    return (music if clip.keyword is None else _spoken_over(music, clip.keyword)).astype(np.float32)


def _spoken_over(music: NDArray[np.float64], keyword: str) -> NDArray[np.float64]:
    """A voice in the middle of the music, which gives way to it."""
    said = voice.say(_SENTENCE.format(keyword), SAMPLE_RATE)[: len(music)]
    start = (len(music) - len(said)) // 2
    mixed = music.copy()
    mixed[start : start + len(said)] = _DUCKED * mixed[start : start + len(said)] + 0.8 * said
    return mixed


def _note(frequency: float, seconds: float) -> NDArray[np.float64]:
    """A plucked tone: the fundamental and two weaker overtones, fading."""
    time = np.arange(int(seconds * 1.2 * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(strength * np.sin(2 * np.pi * frequency * n * time) for n, strength in ((1, 1.0), (2, 0.25), (3, 0.1)))
    return np.asarray(wave * np.exp(-3.0 * time / seconds) * np.minimum(time / 0.01, 1))


def _drum(generator: np.random.Generator) -> NDArray[np.float64]:
    """A short dry beat: falling tone and a click of noise."""
    time = np.arange(int(0.12 * SAMPLE_RATE)) / SAMPLE_RATE
    kick = np.sin(2 * np.pi * (45 * time + 1.5 * (1 - np.exp(-40 * time)))) * np.exp(-30 * time)
    click = generator.normal(0, 0.5, len(time)) * np.exp(-120 * time)
    return np.asarray(kick + click)


def _add(track: NDArray[np.float64], start: int, sound: NDArray[np.float64]) -> None:
    end = min(len(track), start + len(sound))
    if start < end:
        track[start:end] += sound[: end - start]
