"""`avrec media inspect FILE`: one file as people want to see it: a table, its shots, its sound, its words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders import registry
from avrec_spark.encoders.port import Words
from avrec_spark.errors import MissingExtraError
from avrec_spark.media.records import DecodedMedia, Limits, Request, Shot, Sound
from avrec_spark.media.watchdog import Decoder

matplotlib.use("agg")

_SHEET_COLUMNS = 6
_CAPTION = 18
_BANDS = 64
_SPEECH = "whisper"


def inspect(uri: str, settings: FeatureSettings, out: Path, console: Console) -> bool:
    """Describe one file on the console and leave pictures in the folder `out`; whether the file could be used at all.

    Of a file longer than `features.range_seconds` the first range is shown.
    """
    with Decoder(Limits.of(settings)) as decoder:
        media = decoder.decode(Request(uri))
    console.print(_facts(uri, media))
    if media.status not in ("ok", "partial"):
        return False
    out.mkdir(parents=True, exist_ok=True)
    written = []
    if media.shots:
        console.print(_shots(media.shots))
        written.append(_write_picture(contact_sheet(media.shots), out / "contact-sheet.png"))
    if len(media.sound):
        written += [_write_waveform(media.sound, out / "waveform.png"), _write_mel(media.sound, out / "mel.png")]
        written += _transcribe(media.sound, settings, out / "transcript.txt", console)
    for path in written:
        console.print(f"→ {path}")
    return True


def contact_sheet(shots: Iterable[Shot]) -> NDArray[np.uint8]:
    """The thumbnails of all shots with their times, uint8[h, w, 3] in BGR; key scenes have a frame."""
    tiles = [_tile(shot) for shot in shots]
    height, width = max(tile.shape[0] for tile in tiles), max(tile.shape[1] for tile in tiles)
    columns = min(_SHEET_COLUMNS, len(tiles))
    sheet = np.full((math.ceil(len(tiles) / columns) * height, columns * width, 3), 24, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _tile(shot: Shot) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(shot.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    tile = cv2.copyMakeBorder(picture, 3, _CAPTION + 3, 3, 3, cv2.BORDER_CONSTANT, value=(24, 24, 24))
    if shot.key_scene:
        cv2.rectangle(tile, (1, 1), (tile.shape[1] - 2, tile.shape[0] - _CAPTION - 2), (60, 200, 250), 2)
    caption = f"{_clock(shot.start)} {shot.transition}"
    cv2.putText(tile, caption, (4, tile.shape[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (220, 220, 220), 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def _facts(uri: str, media: DecodedMedia) -> Table:
    info = media.info
    table = Table(title=PurePosixPath(uri).name, show_header=False, title_justify="left")
    rows = {
        "status": f"{media.status}" + (f" ({media.reason}): {media.detail}" if media.reason else ""),
        "container": info.container,
        "duration": f"{_clock(info.duration)} ({info.duration:.2f} s)" if info.duration else None,
        "picture": _picture(media),
        "frames": _join(
            [
                f"{info.frame_rate:.3f} a second" if info.frame_rate else None,
                "variable" if info.variable_frame_rate else None,
                f"a key frame every {info.gop}" if info.gop else None,
            ]
        ),
        "sound": _join(
            [
                info.audio_codec,
                f"{info.sample_rate} Hz" if info.sample_rate else None,
                f"{info.channels} channels" if info.channels else None,
                f"{info.loudness:.1f} LUFS" if info.loudness is not None else None,
            ]
        ),
        "silent / black": _join([_percent(info.silence_share, "silent"), _percent(info.black_share, "black")]),
        "bit rate": f"{info.bit_rate / 1000:,.0f} kbit/s" if info.bit_rate else None,
        "languages": ", ".join(info.languages),
        "chapters": _join(f"{_clock(chapter.start)} {chapter.title or ''}".strip() for chapter in info.chapters),
        "tags": _join(f"{name}: {value}" for name, value in info.media_tags.items()),
        "ranges": f"{media.parts}, of which this is the first" if media.parts > 1 else None,
        "decoded": (
            f"{media.frames_decoded} frames and {media.seconds_decoded:.1f} s of sound in {media.seconds_spent:.2f} s"
        ),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def _picture(media: DecodedMedia) -> str | None:
    info = media.info
    size = f"{info.width} × {info.height}" if info.width and info.height else None
    depth = f"{info.bit_depth} bits" if info.bit_depth else None
    return _join([info.video_codec, size, depth, info.colour])


def _shots(shots: list[Shot]) -> Table:
    table = Table(title=f"{len(shots)} shots", title_justify="left")
    for name in ("shot", "from", "to", "begins with", "key scene"):
        table.add_column(name)
    for number, shot in enumerate(shots):
        begins = shot.transition + (f" of {shot.transition_seconds:.1f} s" if shot.transition == "fade" else "")
        table.add_row(str(number), _clock(shot.start), _clock(shot.end), begins, "●" if shot.key_scene else "")
    return table


def _write_picture(picture: NDArray[np.uint8], path: Path) -> Path:
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return path


def _write_waveform(sound: Sound, path: Path) -> Path:
    """The envelope: the largest and smallest sample of each of about two thousand moments."""
    samples = sound.own
    moments = np.array_split(samples, min(2_000, len(samples)))
    times = sound.start + np.linspace(0, len(samples) / sound.rate, len(moments))
    axes, figure = _axes("amplitude")
    axes.fill_between(times, [moment.min() for moment in moments], [moment.max() for moment in moments], linewidth=0)
    axes.set_xlim(times[0], max(times[-1], times[0] + 1e-3))
    axes.set_ylim(-1, 1)
    figure.savefig(path, dpi=110)
    return path


def _write_mel(sound: Sound, path: Path) -> Path:
    import librosa

    power = librosa.feature.melspectrogram(y=sound.own, sr=sound.rate, n_mels=_BANDS)
    level = librosa.power_to_db(power, ref=1.0, top_db=80)
    axes, figure = _axes("mel band")
    end = sound.start + len(sound) / sound.rate
    image = axes.imshow(level, origin="lower", aspect="auto", extent=(sound.start, end, 0, _BANDS), cmap="magma")
    figure.colorbar(image, ax=axes, label="dB")
    figure.savefig(path, dpi=110)
    return path


def _axes(label: str):  # type: ignore[no-untyped-def]
    figure = Figure(figsize=(11, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("seconds")
    axes.set_ylabel(label)
    return axes, figure


def _transcribe(sound: Sound, settings: FeatureSettings, path: Path, console: Console) -> list[Path]:
    try:
        encoder = registry.create(_SPEECH, settings)
        (summary,) = encoder.summarise([sound])
    except MissingExtraError as error:
        console.print(f"No transcript: {error}")
        return []
    words: list[Words] = summary.words if summary else []
    if not words:
        console.print("No speech was heard.")
        return []
    lines = [f"[{_clock(part.start)} – {_clock(part.end)}] {part.text}" for part in words]
    for line in lines:
        console.print(line, markup=False)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path]


def _clock(seconds: float | None) -> str:
    """
    >>> _clock(3723.4)
    '1:02:03.4'
    """
    tenths = round((seconds or 0.0) * 10)
    hours, rest = divmod(tenths, 36_000)
    minutes, rest = divmod(rest, 600)
    clock = f"{minutes:02}:{rest // 10:02}.{rest % 10}"
    return f"{hours}:{clock}" if hours else clock


def _percent(share: float | None, what: str) -> str | None:
    return f"{share:.0%} {what}" if share is not None else None


def _join(parts: Iterable[str | None]) -> str | None:
    return ", ".join(part for part in parts if part) or None
