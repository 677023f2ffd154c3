"""One decoder for a video stream, of which only some packets are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

_FINE_PIXELS = 1920 * 1080

Skip = Literal["DEFAULT", "NONREF", "BIDIR"]


class Decoder:
    """Decodes runs of packets that begin with a key frame, on one core; `errors` counts packets without success."""

    def __init__(self, context: VideoCodecContext, max_pixels: int) -> None:
        self._context = context
        self.errors = 0
        self.decoded = 0
        context.thread_type = "NONE"
        context.thread_count = 1
        # libav itself refuses frames that turn out larger than the header said.
        context.options = {"max_pixels": str(max_pixels)}
        if context.width * context.height >= _FINE_PIXELS:
            # The loop filter takes a tenth of the time of a key frame and a quarter of that of others; of large frames
            # scaled to 224 pixels the picture hardly differs without. Of small ones the blocks would show.
            context.options |= {"skip_loop_filter": "all"}

    def key(self, packet: Packet[Any]) -> VideoFrame | None:
        """The frame of a key packet, or None, counted as an error."""
        before = self.errors
        frames = list(self.run([packet]))
        if not frames and self.errors == before:
            self.errors += 1
        return frames[0] if frames else None

    def run(self, packets: Iterable[Packet[Any]], skip: Skip = "DEFAULT") -> Iterator[VideoFrame]:
        """The frames of packets that follow each other; the first of them is a key packet.

        With `skip="NONREF"` frames are left out that no other frame refers to, with "BIDIR" all B-frames. The decoder
        is drained at the end, which gives its last frames at once and keeps one damaged packet from spoiling the next
        run.
        """
        self._context.skip_frame = skip
        try:
            for packet in packets:
                yield from self.feed(packet)
            yield from self.feed(None)
        finally:
            self._context.flush_buffers()

    def feed(self, packet: Packet[Any] | None) -> list[VideoFrame]:
        """The frames that come out once this packet, or the end, has gone in."""
        try:
            frames = self._context.decode(packet)
        except MemoryError:
            raise  # libav's own is an FFmpegError, too.
        except av.error.FFmpegError:
            self.errors += packet is not None
            return []
        self.decoded += len(frames)
        return frames
