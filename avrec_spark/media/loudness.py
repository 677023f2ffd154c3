"""Integrated loudness after ITU-R BS.1770-4 and EBU R 128, in bins that add up over ranges.

The bins are those of libebur128's histogram mode, except that each holds the sum of its powers beside its count, so
that their width only blurs the relative gate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Bins of 0.1 LU from the absolute gate of −70 LUFS up to +10.
BINS = 800
# Largest difference in LU between a file measured whole and the sum of its ranges, each with CONTEXT_SECONDS on both
# sides: the filter starts anew in every range, and a block at a seam is lost where the context is shorter.
TOLERANCE = 0.1
CONTEXT_SECONDS = 0.5

_GATE = -70.0
_RELATIVE_GATE = -10.0
_BIN = 0.1
_OFFSET = -0.691  # makes a stereo sine of 997 Hz at 0 dBFS measure 0 LUFS
_SILENCE = 1e-6  # mean square; −60 dBFS
_BLOCKS_A_SECOND = 10
_OVERLAP = 4  # a gating block is this many blocks of 100 ms
_TINY = 1e-30
# By number of channels, in ffmpeg's order of the usual layout of that many: 5.0, 5.1, 6.1, 7.1. Of any other: all 1.
_WEIGHTS = {
    5: (1.0, 1.0, 1.0, 1.41, 1.41),
    6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41),
    7: (1.0, 1.0, 1.0, 0.0, 1.0, 1.41, 1.41),
    8: (1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.41, 1.41),
}


class LoudnessMeter:
    """Counts gating blocks and silent blocks of one track, from pieces of any size that follow each other.

    Blocks begin every 100 ms of the file's time, whatever `start`, the time of the first sample in seconds. A block
    counts if its first sample lies in `own`; the rest, `CONTEXT_SECONDS` before and after it, only lets the filter
    settle and completes the last blocks. `blocks` are of 100 ms, and of those `silent_blocks` have an RMS over all
    channels below −60 dBFS. A piece is float32[channels, n]; samples that are not finite count as 0.

    >>> meter = LoudnessMeter(48_000, channels=2)
    >>> sine = 10 ** (-23 / 20) * np.sin(2 * np.pi * 1000 / 48_000 * np.arange(48_000))
    >>> for _ in range(20):
    ...     meter.add(np.stack([sine, sine]))
    >>> round(integrated(meter.counts, meter.powers), 1)
    -23.0
    """

    def __init__(
        self, rate: int, channels: int, start: float = 0.0, own: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        self._rate = rate
        self._own = (own[0] * rate, own[1] * rate)
        self._weights = np.array(_WEIGHTS.get(channels, (1.0,) * channels))
        self._sos = k_weighting(rate)
        self._state = np.zeros((len(self._sos), channels, 2))
        self._position = round(start * rate)  # of the first waiting sample
        self._waiting: list[NDArray[np.float32]] = []
        self._waiting_samples = 0
        self._recent = np.empty((0, 2))  # of the last blocks: first sample, sum of weighted squares
        self._counts, self._powers = np.zeros(BINS), np.zeros(BINS)
        self._blocks = self._silent_blocks = 0

    def add(self, samples: NDArray[np.float32]) -> None:
        self._waiting.append(samples)
        self._waiting_samples += samples.shape[1]
        if self._waiting_samples >= self._rate:  # filtering small pieces would cost more than the filter
            self._measure()

    @property
    def counts(self) -> NDArray[np.float64]:
        """float64[BINS]: gating blocks by loudness."""
        self._measure()
        return self._counts

    @property
    def powers(self) -> NDArray[np.float64]:
        """float64[BINS]: the sum of their powers."""
        self._measure()
        return self._powers

    @property
    def blocks(self) -> int:
        self._measure()
        return self._blocks

    @property
    def silent_blocks(self) -> int:
        self._measure()
        return self._silent_blocks

    def _measure(self) -> None:
        """Take all whole blocks out of the waiting samples."""
        from scipy.signal import sosfilt  # half a second to import; whoever only adds statistics does without

        stop = self._position + self._waiting_samples
        first, last = (self._position - 1) * _BLOCKS_A_SECOND // self._rate + 1, stop * _BLOCKS_A_SECOND // self._rate
        edges = -(-np.arange(first, last + 1) * self._rate // _BLOCKS_A_SECOND)  # first samples, rounded up
        if len(edges) < 2:
            return
        samples = np.concatenate(self._waiting, axis=1)
        if not np.isfinite(samples.sum()):
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        used = int(edges[-1] - self._position)
        self._waiting, self._waiting_samples = [samples[:, used:]], samples.shape[1] - used
        samples, offsets = samples[:, :used], edges[:-1] - self._position
        self._position += used

        filtered, self._state = sosfilt(self._sos, samples, axis=1, zi=self._state)
        self._state[np.abs(self._state) < _TINY] = 0.0  # denormal numbers make the filter crawl
        np.square(filtered, out=filtered)
        self._count_silence(edges, np.add.reduceat(np.einsum("cn,cn->n", samples, samples), offsets, dtype=float))
        self._count_loudness(edges, np.add.reduceat(self._weights @ filtered, offsets))

    def _is_own(self, first_samples: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((first_samples >= self._own[0]) & (first_samples < self._own[1]))

    def _count_silence(self, edges: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
        own = self._is_own(edges[:-1])
        silent = sums < _SILENCE * np.diff(edges) * len(self._weights)
        self._blocks += int(own.sum())
        self._silent_blocks += int((own & silent).sum())

    def _count_loudness(self, edges: NDArray[np.int64], sums: NDArray[np.float64]) -> None:
        blocks = np.concatenate([self._recent, np.stack([edges[:-1], sums], axis=1)])
        self._recent = blocks[-(_OVERLAP - 1) :]
        if len(blocks) < _OVERLAP:
            return
        firsts = blocks[: len(blocks) - _OVERLAP + 1, 0]
        ends = np.append(blocks[_OVERLAP:, 0], edges[-1])
        powers = np.convolve(blocks[:, 1], np.ones(_OVERLAP), "valid") / (ends - firsts)
        powers = powers[self._is_own(firsts)]
        levels = _loudness(powers)
        powers, levels = powers[levels > _GATE], levels[levels > _GATE]
        bins = np.minimum(((levels - _GATE) / _BIN).astype(int), BINS - 1)
        self._counts += np.bincount(bins, minlength=BINS)
        self._powers += np.bincount(bins, powers, minlength=BINS)


def integrated(counts: NDArray[np.float64], powers: NDArray[np.float64]) -> float | None:
    """Integrated loudness in LUFS of bins that blocks above the absolute gate were counted in; None without any.

    A bin passes the relative gate as a whole, by the mean power of its blocks.
    """
    if not counts.sum():
        return None
    counts, powers = counts[counts > 0], powers[counts > 0]
    gate = _loudness(powers.sum() / counts.sum()) + _RELATIVE_GATE
    above = _loudness(powers / counts) > gate
    return float(_loudness(powers[above].sum() / counts[above].sum()))


def k_weighting(rate: int) -> NDArray[np.float64]:
    """Second-order sections float64[2, 6] of the K-weighting filter: a shelf for the head, then a high-pass (RLB).

    BS.1770 gives coefficients for 48 kHz only; for another rate the analogue filters behind them are transformed anew,
    with the constants of libebur128 (ebur128.c, `ebur128_init_filter`, MIT licence).
    """
    highest = 0.45 * rate  # keeps the shelf below half of a very low rate
    k = math.tan(math.pi * min(1681.974450955533, highest) / rate)
    q, gain = 0.7071752369554196, 10.0 ** (3.999843853973347 / 20.0)
    middle = gain**0.4996667741545416
    shelf = [gain + middle * k / q + k * k, 2.0 * (k * k - gain), gain - middle * k / q + k * k, *_poles(k, q)]
    k, q = math.tan(math.pi * 38.13547087602444 / rate), 0.5003270373238773
    high_pass = [1.0, -2.0, 1.0, *_poles(k, q)]
    sections = np.array([shelf, high_pass])
    sections[0] /= sections[0, 3]
    sections[1, 3:] /= sections[1, 3]  # the standard leaves its numerator at 1, −2, 1
    return sections


def _poles(k: float, q: float) -> tuple[float, float, float]:
    return 1.0 + k / q + k * k, 2.0 * (k * k - 1.0), 1.0 - k / q + k * k


def _loudness(power: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.asarray(_OFFSET + 10.0 * np.log10(np.maximum(power, _TINY)))
