"""What is planted in the rendered world: five factors a clip, known to nobody but the tests.

Each factor reaches one sense: palette and motion are seen, tempo and pitch heard, the topic is read. They are drawn
independently, so that no modality can tell what another one is for.
"""

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

# What a title is about: subjects in English and in Chinese.
TOPICS = {
    "cooking": (
        ("fresh bread", "noodle soup", "apple cake", "fried rice"),
        ("新鲜面包", "牛肉面", "苹果蛋糕", "蛋炒饭"),
    ),
    "football": (
        ("the penalty kick", "the goalkeeper", "the league final", "the best goals"),
        ("点球", "守门员", "联赛决赛", "精彩进球"),
    ),
    "astronomy": (
        ("the rings of Saturn", "a distant galaxy", "the solar eclipse", "a telescope"),
        ("土星环", "遥远的星系", "日食", "天文望远镜"),
    ),
    "gardening": (
        ("planting tomatoes", "pruning roses", "compost and soil", "a flower bed"),
        ("种植番茄", "修剪玫瑰", "堆肥与土壤", "花坛"),
    ),
    "railways": (
        ("a steam locomotive", "the night train", "the railway station", "high-speed rail"),
        ("蒸汽机车", "夜行列车", "火车站", "高速铁路"),
    ),
    "finance": (
        ("the stock market", "interest rates", "saving for a pension", "filing taxes"),
        ("股票市场", "利率", "养老储蓄", "报税"),
    ),
}
_INTRODUCTIONS = (
    ("All about", "A few minutes with", "Notes on", "Once more:"),
    ("聊聊", "几分钟看懂", "再说说", "关于"),
)

# What a voice says where a synthesiser is installed. Nobody likes or dislikes a clip for it.
KEYWORDS = ("mountain", "computer", "garden", "telephone")

LEVELS = {
    "palette": tuple(PALETTES),
    "motion": MOTIONS,
    "tempo": tuple(TEMPOS),
    "pitch": tuple(PITCHES),
    "topic": tuple(TOPICS),
}
# The factors by the sense that they reach.
SENSES = {"look": ("palette", "motion"), "sound": ("tempo", "pitch"), "words": ("topic",)}


@dataclass(frozen=True)
class Clip:
    """One clip's planted factors; `seconds` its length, `seed` of everything else about it.

    `lacks` is the sense that it does not reach: without look a file has no video track, without sound no audio track,
    and without words neither title, description nor tags. What it lacks of the factors nobody can like or dislike.
    `keyword` is what a voice says in it.
    """

    item_id: str
    palette: str
    motion: str
    tempo: str
    pitch: str
    topic: str
    seconds: float
    portrait: bool
    seed: int
    lacks: str | None = None
    keyword: str | None = None

    def level(self, factor: str) -> int:
        """The index of the clip's level of a factor."""
        return LEVELS[factor].index(getattr(self, factor))

    def has(self, factor: str) -> bool:
        """Whether the factor can be seen, heard or read in the clip."""
        return factor not in SENSES.get(self.lacks or "", ())

    @property
    def file_name(self) -> str:
        return f"{self.item_id}.{'m4a' if self.lacks == 'look' else 'mp4'}"


def draw_clips(count: int, seed: int, missing_share: float = 0.0, spoken: bool = False) -> list[Clip]:
    """Clips with levels drawn evenly; ids are random and say nothing.

    Of each sense, `missing_share` of the clips, rounded down, lacks it. `spoken` gives those with sound a keyword, and
    leaves all else as it is.
    """
    generator = np.random.default_rng([seed, 1])
    keywords = np.random.default_rng([seed, 7]).choice(KEYWORDS, count).tolist()
    each = int(missing_share * count)
    lacks = dict(zip(generator.permutation(count).tolist(), np.repeat(list(SENSES), each).tolist(), strict=False))
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
                lacks=lacks.get(number),
                keyword=keywords[number] if spoken and lacks.get(number) != "sound" else None,
            )
        )
    return clips


def title(clip: Clip, generator: np.random.Generator) -> str:
    """A title in English, in Chinese, or in both, that names the topic and nothing of look and sound."""
    english, chinese = _sentence(clip, 0, generator), _sentence(clip, 1, generator)
    return str(generator.choice([english, chinese, f"{english} · {chinese}"], p=[0.4, 0.35, 0.25]))


def description(clip: Clip, generator: np.random.Generator) -> str:
    """One more subject of the topic, in either language."""
    language = int(generator.random() < 0.4)
    subject = generator.choice(TOPICS[clip.topic][language])
    return f"也谈{subject}。" if language else f"Also on {subject}."


def _sentence(clip: Clip, language: int, generator: np.random.Generator) -> str:
    introduction = generator.choice(_INTRODUCTIONS[language])
    return f"{introduction}{'' if language else ' '}{generator.choice(TOPICS[clip.topic][language])}"
