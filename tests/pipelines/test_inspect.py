"""`avrec media inspect`: what a person sees of one file, on the terminal and as pictures. No Spark."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from avrec_spark.cli import app
from tests.media import assembled, hostile

REPOSITORY = Path(__file__).resolve().parent.parent.parent
REAL = REPOSITORY.parent / "shared" / "data" / "media"
# As OpenCV has them: blue, green, red.
COLOURS = [(30, 30, 200), (40, 180, 30), (200, 40, 30)]
INK = (180, 119, 31)  # matplotlib's first colour


def inspect(file: object, *options: object, columns: int = 120):
    """The exit code and what was said."""
    words = ["media", "inspect", str(file), *map(str, options)]
    done = CliRunner().invoke(app, words, env={"COLUMNS": str(columns)})
    return done.exit_code, done.output


def png(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(b"\x89PNG")
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def box(picture: np.ndarray) -> tuple[int, int]:
    """The rows of the upper and the lower edge of the one diagram in a picture."""
    rows = np.flatnonzero((picture.max(axis=2) < 60).mean(axis=1) > 0.6)
    return int(rows[0]), int(rows[-1])


def inked_share(path: Path) -> float:
    """How much of the height of a waveform's diagram is inked at the most."""
    picture = png(path)
    top, bottom = box(picture)
    inked = (np.abs(picture.astype(int) - INK).max(axis=2) < 40).any(axis=1)[top + 1 : bottom]
    assert inked.any()
    rows = np.flatnonzero(inked)
    # Around the middle: neither above nor below alone.
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(len(inked) / 2, abs=3)
    return float((rows[-1] - rows[0]) / len(inked))


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Three takes of two seconds: red, green and blue, each with a line that moves."""
    frames = []
    for colour in COLOURS:
        for number in range(2 * assembled.RATE):
            frames.append(np.full((assembled.HEIGHT, assembled.WIDTH, 3), colour[::-1], np.uint8))
            frames[-1][:, 4 + number : 8 + number] //= 2
    return assembled.write(tmp_path_factory.mktemp("film") / "film.mp4", frames, "libx264", {"preset": "fast"})


def test_a_silent_film_gives_a_table_and_a_contact_sheet_with_a_tile_a_shot(film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    code, said = inspect(film)

    assert code == 0
    for words in ("film.mp4", "ok", "00:06.0 (6.00 s)", "h264, 320 × 180, 8 bits", "25 a second", "3 shots"):
        assert words in said
    # By default the pictures go to a folder of the file's name.
    assert [path.name for path in (tmp_path / "inspect" / "film").iterdir()] == ["contact-sheet.png"]
    sheet = png(tmp_path / "inspect" / "film" / "contact-sheet.png")
    # Three thumbnails of 192 × 108, each with a border of 3 and a caption of 18.
    assert sheet.shape == (132, 3 * 198, 3)
    for tile, colour in enumerate(COLOURS):
        centre = sheet[40:70, tile * 198 + 90 : tile * 198 + 108].reshape(-1, 3)
        assert np.abs(np.median(centre, axis=0) - colour).max() < 25


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(film, tmp_path, monkeypatch, columns):
    monkeypatch.chdir(tmp_path)
    _, said = inspect(film, "--out", "out", columns=columns)
    assert max(map(len, said.splitlines())) <= columns


def test_a_waveform_is_as_high_as_the_sound_is_loud_and_that_of_silence_is_flat(tmp_path):
    for name, loud in (("tone", 0.5), ("silence", 0.0)):
        clip = hostile.encode(tmp_path / f"{name}.mp4", size=(48, 48), loud=loud)
        assert inspect(clip, "--out", tmp_path / name)[0] == 0
    # The axis goes from −1 to 1.
    assert inked_share(tmp_path / "tone" / "waveform.png") == pytest.approx(0.5, abs=0.05)
    assert inked_share(tmp_path / "silence" / "waveform.png") < 0.02
    assert png(tmp_path / "tone" / "waveform.png").shape == (330, 1210, 3)


def test_a_mel_spectrogram_shows_a_tone_at_its_pitch_and_silence_black(tmp_path):
    for name, loud in (("tone", 0.5), ("silence", 0.0)):
        clip = hostile.encode(tmp_path / f"{name}.mp3", video=False, loud=loud)
        code, said = inspect(clip, "--out", tmp_path / name)
        assert code == 0 and "No speech was heard." in said and "shot" not in said
    tone, silence = (png(tmp_path / name / "mel.png")[:, 400:600] for name in ("tone", "silence"))
    top, bottom = box(silence)
    assert tone.shape[0] == 330 and silence[top:bottom].max() < 60
    row = int(tone[top + 2 : bottom - 2].sum(axis=(1, 2)).argmax()) + top + 2
    # By Slaney's scale, linear up to 1 kHz: mel(11025 Hz) = 15 + 27 ln(11.025) / ln(6.4), and mel(f) = 3 f / 200.
    highest = 15 + 27 * np.log(11.025) / np.log(6.4)
    assert (bottom - row) / (bottom - top) * highest * 200 / 3 == pytest.approx(440, abs=60)


def test_speech_becomes_a_transcript(tmp_path):
    pytest.importorskip("faster_whisper", reason="needs the extra speech")
    if not (REAL / "nasa_13013.mp4").exists():
        pytest.skip(f"needs the real clips in {REAL}")

    code, said = inspect(REAL / "nasa_13013.mp4", "--out", tmp_path)

    assert code == 0
    written = (tmp_path / "transcript.txt").read_text()
    assert "telescope" in written.lower() and written.startswith("[00:00.")
    assert all(line in said for line in written.splitlines())


def test_without_the_library_for_speech_it_says_which_extra_brings_it(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faster_whisper" else find(name))
    clip = hostile.encode(tmp_path / "tone.mp4", size=(48, 48))

    code, said = inspect(clip, "--out", tmp_path / "out")

    assert code == 0
    assert "No transcript: " in said and "pip install 'avrec-spark[speech]'" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "contact-sheet.png",
        "mel.png",
        "waveform.png",
    ]


def test_a_broken_file_gives_one_line_and_the_exit_code_202(tmp_path):
    (tmp_path / "empty [1].mp4").touch()

    code, said = inspect(tmp_path / "empty [1].mp4", "--out", tmp_path / "out")

    assert (code, said) == (202, "✗ empty [1].mp4: corrupt (empty): The file has zero bytes.\n")
    assert not (tmp_path / "out").exists()


def test_words_in_a_file_are_shown_and_not_obeyed(tmp_path):
    clip = hostile.encode(tmp_path / "clip.mp4", size=(48, 48), layout=None)
    with av.open(str(clip)) as source, av.open(str(tmp_path / "tagged.mkv"), "w") as container:
        container.metadata["title"] = "a [/bold] title\x1b[2J"
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)

    code, said = inspect(tmp_path / "tagged.mkv", "--out", tmp_path / "out")

    assert code == 0 and "title: a [/bold] title [2J" in said and "\x1b" not in said


def test_a_folder_that_cannot_be_made_is_named(film, tmp_path):
    (tmp_path / "out").touch()
    code, said = inspect(film, "--out", tmp_path / "out")
    assert code == 2 and "out cannot be made: File exists" in " ".join(said.split())


def test_a_film_in_an_object_store_is_inspected_where_it_lies(film, s3, tmp_path):
    uri = s3.bucket("inspected") + "/films/film.mp4"
    s3.put(uri, film.read_bytes())

    code, said = inspect(uri, "--out", tmp_path / "out", "--set", f"features.cache_folder={tmp_path / 'cache'}")

    assert code == 0 and "3 shots" in said
    assert (tmp_path / "out" / "contact-sheet.png").exists()


@pytest.mark.parametrize("uri", ["s3://KEYID:SECRET@films/film.mp4", "s3://KEYID:SECRET@films"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    code, said = inspect(uri)
    assert code == 202 and "credentials_in_uri" in said
    assert "SECRET" not in said and "KEYID" not in said
