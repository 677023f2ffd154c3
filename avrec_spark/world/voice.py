"""A voice that says a clip's keyword, where a speech synthesiser is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly

# Programs in order of preference, and how each is told to write a text into a WAV file.
_PROGRAMS: dict[str, Callable[[str, str], list[str]]] = {
    "espeak-ng": lambda text, file: ["-v", "en-us", "-s", "140", "-w", file, text],
    "espeak": lambda text, file: ["-v", "en-us", "-s", "140", "-w", file, text],
    "flite": lambda text, file: ["-t", text, "-o", file],
}


def synthesiser() -> str | None:
    """The first of espeak-ng, espeak and flite that is on the PATH."""
    return next((name for name in _PROGRAMS if shutil.which(name)), None)


@lru_cache(maxsize=64)
def say(text: str, rate: int) -> NDArray[np.float32]:
    """float32[samples], mono between −1 and 1, without silence at the ends.

    Raises `FileNotFoundError` where no synthesiser is installed.
    """
    program = synthesiser()
    if program is None:
        raise FileNotFoundError(f"none of {', '.join(_PROGRAMS)} is on the PATH")
    with tempfile.TemporaryDirectory(prefix="avrec-voice-") as folder:
        file = str(Path(folder) / "said.wav")
        subprocess.run([program, *_PROGRAMS[program](text, file)], check=True, capture_output=True)
        own_rate, samples = wavfile.read(file)
    divisor = int(np.gcd(rate, own_rate))
    voice = resample_poly(samples.astype(np.float64), rate // divisor, own_rate // divisor)
    voice /= max(np.abs(voice).max(), 1e-9)
    loud = np.flatnonzero(np.abs(voice) > 0.01)
    return np.asarray(voice[loud[0] : loud[-1] + 1] if len(loud) else voice, np.float32)
