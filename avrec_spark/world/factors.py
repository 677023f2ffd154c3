"""What is planted in the rendered world: four factors a clip, known to nobody but the tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Palette:
    """Colours as HSV degrees and shares: sky at the top, sky at the horizon, glow, and the nearest hill."""

    hue: float
    sky: tuple[float, float, float]
    horizon: tuple[float, float, float]
    glow: tuple[float, float, float]
    hill: tuple[float, float, float]


PALETTES = {
    "ember": Palette(12, (352, 0.75, 0.28), (18, 0.80, 0.88), (32, 0.65, 1.0), (8, 0.85, 0.16)),
    "meadow": Palette(95, (150, 0.45, 0.45), (75, 0.45, 0.90), (62, 0.40, 1.0), (120, 0.75, 0.22)),
    "ocean": Palette(200, (218, 0.85, 0.35), (190, 0.55, 0.88), (180, 0.25, 1.0), (212, 0.90, 0.18)),
    "dusk": Palette(285, (258, 0.70, 0.26), (315, 0.50, 0.80), (330, 0.35, 1.0), (268, 0.75, 0.15)),
}
MOTIONS = ("drift", "bounce", "spin", "pulse")
# Beats a minute.
TEMPOS = {"slow": 66.0, "steady": 100.0, "fast": 150.0}
# Hz of the root note.
PITCHES = {"low": 130.81, "middle": 261.63, "high": 523.25}

LEVELS = {
    "palette": tuple(PALETTES),
    "motion": MOTIONS,
    "tempo": tuple(TEMPOS),
    "pitch": tuple(PITCHES),
}

# What a title says of a factor, in English and in Chinese.
WORDS = {
    "ember": (("Ember sky", "Red evening", "Fire hills"), ("余烬天空", "红色傍晚", "火山丘")),
    "meadow": (("Green valley", "Meadow morning", "Spring hills"), ("绿色山谷", "草地清晨", "春天的山")),
    "ocean": (("Blue coast", "Ocean light", "Deep water"), ("蓝色海岸", "海洋之光", "深海")),
    "dusk": (("Violet dusk", "Purple night", "Dream hills"), ("紫色黄昏", "紫夜", "梦之丘")),
    "drift": (("drifting", "floating by"), ("漂流", "飘荡")),
    "bounce": (("bouncing", "jumping"), ("跳跃", "弹跳")),
    "spin": (("spinning", "circling"), ("旋转", "转圈")),
    "pulse": (("pulsing", "breathing"), ("脉动", "呼吸")),
    "slow": (("slow", "calm"), ("缓慢", "宁静")),
    "steady": (("steady", "unhurried"), ("平稳", "从容")),
    "fast": (("fast", "racing"), ("快速", "飞驰")),
    "low": (("deep tones", "bass"), ("低音", "低沉")),
    "middle": (("warm tones", "strings"), ("中音", "弦乐")),
    "high": (("bright tones", "bells"), ("高音", "铃声")),
}


@dataclass(frozen=True)
class Clip:
    """One clip's planted factors; `seconds` its length, `seed` of everything else about it."""

    item_id: str
    palette: str
    motion: str
    tempo: str
    pitch: str
    seconds: float
    portrait: bool
    seed: int

    def level(self, factor: str) -> int:
        """The index of the clip's level of a factor."""
        return LEVELS[factor].index(getattr(self, factor))


def draw_clips(count: int, seed: int) -> list[Clip]:
    """Clips with levels drawn evenly; ids are random and say nothing."""
    generator = np.random.default_rng([seed, 1])
    clips = []
    for number in range(count):
        levels = {name: str(generator.choice(values)) for name, values in LEVELS.items()}
        clips.append(
            Clip(
                item_id=generator.bytes(5).hex(),
                **levels,
                seconds=round(float(generator.uniform(4, 8)) * 2) / 2,
                portrait=bool(generator.random() < 0.2),
                seed=seed * 1_000_003 + number,
            )
        )
    return clips


def title(clip: Clip, generator: np.random.Generator) -> str:
    """A title in English, in Chinese, or in both, that hints at look, motion and tempo."""

    def word(level: str, language: int) -> str:
        return str(generator.choice(WORDS[level][language]))

    english = f"{word(clip.palette, 0)}, {word(clip.tempo, 0)} and {word(clip.motion, 0)}"
    chinese = f"{word(clip.palette, 1)}·{word(clip.tempo, 1)}{word(clip.motion, 1)}"
    return str(generator.choice([english, chinese, f"{english} · {chinese}"], p=[0.4, 0.35, 0.25]))


def description(clip: Clip, generator: np.random.Generator) -> str:
    """One sentence on the sound."""
    language = int(generator.random() < 0.4)
    sound = str(generator.choice(WORDS[clip.pitch][language]))
    return f"配乐：{sound}" if language else f"A short scene with {sound}."
