"""Every encoder, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import local
from avrec_spark.encoders.audio import LibrosaEncoder
from avrec_spark.encoders.motion import OpticalFlowEncoder
from avrec_spark.encoders.palette import PaletteEncoder
from avrec_spark.encoders.port import Encoder
from avrec_spark.encoders.screen import RapidOcrEncoder
from avrec_spark.encoders.speech import WhisperEncoder
from avrec_spark.encoders.text import E5Encoder
from avrec_spark.encoders.visual import EfficientNetEncoder
from avrec_spark.errors import SettingsError, closest

_MAKERS: dict[str, Callable[[FeatureSettings, str], Encoder[Any]]] = {
    EfficientNetEncoder.name: lambda settings, device: EfficientNetEncoder(settings.max_key_frames, device),
    PaletteEncoder.name: lambda settings, device: PaletteEncoder(settings.max_key_frames),
    OpticalFlowEncoder.name: lambda settings, device: OpticalFlowEncoder(settings.max_key_frames),
    LibrosaEncoder.name: lambda settings, device: LibrosaEncoder(settings.sample_rate),
    WhisperEncoder.name: lambda settings, device: WhisperEncoder(settings.sample_rate, settings.whisper_model, device),
    RapidOcrEncoder.name: lambda settings, device: RapidOcrEncoder(settings.max_key_frames),
    E5Encoder.name: lambda settings, device: E5Encoder(),
}

NAMES = tuple(_MAKERS)


def create(name: str, settings: FeatureSettings, device: str = "cpu") -> Encoder[Any]:
    """The encoder of that name, ours or one of `settings.local_models`. `device` is "cpu" or a CUDA device.

    Raises `SettingsError` for an unknown name or a folder without a model, `MissingExtraError` when its library is not
    installed.

    >>> create("librosa", FeatureSettings()).modality
    'audio'
    """
    if name in _MAKERS and name in settings.local_models:
        raise SettingsError(
            f"features.local_models names a model {name!r}, and so is an encoder of ours called.",
            "Give the model another name.",
        )
    if name in settings.local_models:
        return local.create(name, settings.local_models[name], settings.sample_rate, device)
    if name not in _MAKERS:
        names = (*NAMES, *settings.local_models)
        raise SettingsError(
            f"There is no encoder {name!r}.{closest(name, names)}", f"features.encoders knows {', '.join(names)}."
        )
    return _MAKERS[name](settings, device)


def in_use(settings: FeatureSettings, device: str = "cpu") -> list[Encoder[Any]]:
    """All encoders of `settings.encoders`; a `SettingsError` where two of them have one modality.

    >>> [encoder.modality for encoder in in_use(FeatureSettings(encoders=("palette", "optical-flow")))]
    ['colour', 'motion']
    """
    encoders: dict[str, Encoder[Any]] = {}
    for name in settings.encoders:
        encoder = create(name, settings, device)
        if encoder.modality in encoders:
            raise SettingsError(
                f"features.encoders holds {encoders[encoder.modality].name} and {name}, which both give vectors of the "
                f"modality {encoder.modality}.",
                "Take one of them, or call the local model by a name that is no modality.",
            )
        encoders[encoder.modality] = encoder
    return list(encoders.values())
