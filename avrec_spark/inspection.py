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
from rich.text import Text

from avrec_spark.config import FeatureSettings
from avrec_spark.encoders.speech import WhisperEncoder, transcribed
from avrec_spark.errors import MissingExtraError, UsageError
from avrec_spark.media.records import Chapter, DecodedMedia, Limits, Request, Shot, Sound
from avrec_spark.media.storage import redacted
from avrec_spark.media.watchdog import Decoder
from avrec_spark.tables import USABLE

matplotlib.use("agg")

_SHEET_COLUMNS = 6
_CAPTION = 18
_BANDS = 64
_WINDOW, _HOP = 2048, 512
_DPI = 110
_FAINTEST_DB = -80.0
_PITCHES = (250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
_MOST_CHAPTERS, _LONGEST_TAG = 20, 200


def inspect(uri: str, settings: FeatureSettings, out: Path, console: Console) -> bool:
    """Describe one file on the console and leave pictures in the folder `out`; whether the file could be used at all.

    Of a file longer than `features.range_seconds` the first range is shown. Raises `UsageError` where `out` cannot be
    made.
    """
    with Decoder(Limits.of(settings)) as decoder:
        media = decoder.decode(Request(uri))
    name = _plain(PurePosixPath(redacted(uri)).name)
    if media.status not in USABLE:
        _say(console, f"✗ {name}: {_status(media)}")
        return False
    console.print(_facts(name, media))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {out} cannot be made: {error.strerror}.", "Choose another with --out.") from None
    written = []
    if media.shots:
        console.print(_shots(media.shots))
        written.append(_write_picture(contact_sheet(media.shots), out / "contact-sheet.png"))
    if len(media.sound):
        written += [_write_waveform(media.sound, out / "waveform.png"), _write_mel(media.sound, out / "mel.png")]
        written += _transcribe(media.sound, settings, out / "transcript.txt", console)
    for path in written:
        _say(console, f"→ {path}")
    return True


def contact_sheet(shots: Iterable[Shot]) -> NDArray[np.uint8]:
    """The thumbnails of all shots with their times, uint8[h, w, 3] in BGR; key scenes have a frame."""
    tiles = [_tile(shot) for shot in shots]
    height, width = max(tile.shape[0] for tile in tiles), max(tile.shape[1] for tile in tiles)
    columns = min(len(tiles), max(_SHEET_COLUMNS, math.isqrt(len(tiles))))
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


def _facts(name: str, media: DecodedMedia) -> Table:
    info = media.info
    rows = {
        "status": _status(media),
        "container": info.container,
        "duration": f"{_clock(info.duration)} ({info.duration:.2f} s)" if info.duration else None,
        "picture": _join(
            [
                info.video_codec,
                f"{info.width} × {info.height}" if info.width and info.height else None,
                f"{info.bit_depth} bits" if info.bit_depth else None,
                info.colour,
            ]
        ),
        "frames": _join(
            [
                f"{info.frame_rate:.5g} a second" if info.frame_rate else None,
                "variable" if info.variable_frame_rate else None,
                f"a key frame every {info.gop}" if info.gop else None,
                f"{info.black_share:.0%} of them black" if info.black_share is not None else None,
            ]
        ),
        "sound": _join(
            [
                info.audio_codec,
                f"{info.sample_rate} Hz" if info.sample_rate else None,
                _count(info.channels, "channel") if info.channels else None,
                f"{info.loudness:.1f} LUFS" if info.loudness is not None else None,
                f"{info.silence_share:.0%} silent" if info.silence_share is not None else None,
            ]
        ),
        "bit rate": f"{info.bit_rate / 1000:,.0f} kbit/s" if info.bit_rate else None,
        "languages": ", ".join(info.languages),
        "chapters": _chapters(info.chapters),
        "tags": "\n".join(f"{key}: {_shortened(tag)}" for key, tag in info.media_tags.items()),
        "ranges": f"{media.parts}, of which this is the first" if media.parts > 1 else None,
        "decoded": (
            f"{media.frames_decoded} frames and {media.seconds_decoded:.1f} s of sound in {media.seconds_spent:.2f} s"
        ),
    }
    table = Table(title=Text(name), show_header=False, title_justify="left")
    for label, value in rows.items():
        if value:
            table.add_row(label, Text(_plain(value)))
    return table


def _status(media: DecodedMedia) -> str:
    return media.status + (f" ({media.reason}): {media.detail}" if media.reason else "")


def _chapters(chapters: list[Chapter]) -> str:
    lines = [f"{_clock(chapter.start)} {chapter.title or ''}".strip() for chapter in chapters[:_MOST_CHAPTERS]]
    more = len(chapters) - len(lines)
    return "\n".join(lines + ([f"and {more} more"] if more else []))


def _shots(shots: list[Shot]) -> Table:
    table = Table(title=_count(len(shots), "shot"), title_justify="left")
    table.add_column("shot", justify="right")
    for name in ("from", "to", "begins with", "key scene"):
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
    lowest, highest = ([edge(moment) for moment in moments] for edge in (np.min, np.max))
    # With its edge, so that silence is a line.
    axes.fill_between(times, lowest, highest, edgecolor="face", linewidth=1.0)
    axes.set_xlim(times[0], max(times[-1], times[0] + 1e-3))
    axes.set_ylim(-1, 1)
    figure.savefig(path, dpi=_DPI)
    return path


def _write_mel(sound: Sound, path: Path) -> Path:
    """Level in dB of full scale, always on the same scale, so that pictures of two files can be compared."""
    import librosa
    from librosa.filters import mel

    # librosa.feature would do this in one call, after a second of imports.
    spectrum = np.abs(librosa.stft(sound.own, n_fft=_WINDOW, hop_length=_HOP)) ** 2
    power = mel(sr=sound.rate, n_fft=_WINDOW, n_mels=_BANDS, norm=None) @ spectrum
    # A sine of full scale has the amplitude n / 4 in a Hann window of n samples.
    level = librosa.power_to_db(power, ref=(_WINDOW / 4) ** 2, top_db=None)
    axes, figure = _axes("Hz")
    end, highest = sound.start + len(sound) / sound.rate, librosa.hz_to_mel(sound.rate / 2)
    image = axes.imshow(
        level, origin="lower", aspect="auto", extent=(sound.start, end, 0, highest), cmap="magma",
        vmin=_FAINTEST_DB, vmax=0,
    )  # fmt: skip
    pitches = [pitch for pitch in _PITCHES if pitch < sound.rate / 2]
    axes.set_yticks(librosa.hz_to_mel(pitches), [str(pitch) for pitch in pitches])
    figure.colorbar(image, ax=axes, label="dB of full scale", pad=0.01)
    figure.savefig(path, dpi=_DPI)
    return path


def _axes(label: str):  # type: ignore[no-untyped-def]
    figure = Figure(figsize=(11, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("seconds")
    axes.set_ylabel(label)
    return axes, figure


def _transcribe(sound: Sound, settings: FeatureSettings, path: Path, console: Console) -> list[Path]:
    try:
        encoder = WhisperEncoder(settings.sample_rate, settings.whisper_model)
    except MissingExtraError as error:
        _say(console, f"No transcript: {error}")
        return []
    words = [] if encoder.is_empty(sound) else transcribed(sound, encoder.folder)
    if not words:
        _say(console, "No speech was heard.")
        return []
    lines = [f"[{_clock(part.start)} – {_clock(part.end)}] {part.text}" for part in words]
    for line in lines:
        _say(console, line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path]


def _say(console: Console, line: str) -> None:
    """A line as it is: brackets are no markup, and a path is not broken in two."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    """Without the control characters by which a file's tags could command a terminal.

    >>> _plain("song\\x1b[2J")
    'song [2J'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def _shortened(tag: str) -> str:
    return tag if len(tag) <= _LONGEST_TAG else tag[: _LONGEST_TAG - 1] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


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


def _join(parts: Iterable[str | None]) -> str | None:
    return ", ".join(part for part in parts if part) or None
