"""What is counted over a file in a way that the ranges of a long file add up to the file, exactly."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from avrec_spark.media.loudness import BINS, integrated


@dataclass
class Statistics:
    """Sums over a file or a range of it; `+` joins two ranges.

    `blocks` are 100 ms of sound, of which `silent_blocks` stay below −60 dBFS. `loudness_counts` and `loudness_powers`
    are float64[BINS]: how many gating blocks of 400 ms fell into each bin of loudness, and the sum of their powers.

    >>> (Statistics(key_frames=3, black_frames=1) + Statistics(key_frames=1)).black_share
    0.25
    """

    packets: int = 0
    key_frames: int = 0
    black_frames: int = 0
    blocks: int = 0
    silent_blocks: int = 0
    loudness_counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    loudness_powers: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def black_share(self) -> float | None:
        """Of the key frames."""
        return self.black_frames / self.key_frames if self.key_frames else None

    @property
    def silence_share(self) -> float | None:
        return self.silent_blocks / self.blocks if self.blocks else None

    @property
    def gop(self) -> int | None:
        """Packets a key frame."""
        return round(self.packets / self.key_frames) if self.key_frames else None

    @property
    def loudness(self) -> float | None:
        """Integrated loudness in LUFS; None where there is no sound above the absolute gate."""
        return integrated(self.loudness_counts, self.loudness_powers)
