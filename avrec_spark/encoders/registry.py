"""Every encoder, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders.audio import LibrosaEncoder
from avrec_spark.encoders.port import Encoder
from avrec_spark.encoders.text import E5Encoder
from avrec_spark.encoders.visual import EfficientNetEncoder
from avrec_spark.errors import SettingsError, closest

_MAKERS: dict[str, Callable[[FeatureSettings, str], Encoder[Any]]] = {
    EfficientNetEncoder.name: lambda settings, device: EfficientNetEncoder(settings.max_key_frames, device),
    LibrosaEncoder.name: lambda settings, device: LibrosaEncoder(settings.sample_rate, settings.max_audio_seconds),
    E5Encoder.name: lambda settings, device: E5Encoder(),
}

NAMES = tuple(_MAKERS)


def create(name: str, settings: FeatureSettings, device: str = "cpu") -> Encoder[Any]:
    """The encoder of that name. `device` is "cpu" or a CUDA device, for those that use one.

    Raises `SettingsError` for an unknown name, `MissingExtraError` when its library is not installed.

    >>> create("librosa", FeatureSettings()).modality
    'audio'
    """
    if name not in _MAKERS:
        raise SettingsError(
            f"There is no encoder {name!r}.{closest(name, NAMES)}", f"features.encoders knows {', '.join(NAMES)}."
        )
    return _MAKERS[name](settings, device)
