"""The child process of `watchdog.Decoder`: decodes one file a message, until its input ends.

Messages are pickles behind an eight-byte length. They travel over a duplicate of the standard output; descriptor 1
itself is pointed at the standard error, so that whatever a native library prints cannot get between them.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from avrec_spark.media.decode import decode
from avrec_spark.media.records import DecodedMedia, Limits, Request

LENGTH = struct.Struct("!Q")
READY = "ready"

# A parent that is killed cannot stop a decoder that hangs; the child's own alarm does, this much after the timeout.
_ORPHAN_GRACE_SECONDS = 5.0


def serve(answer: Callable[[Request, Limits], DecodedMedia] = decode) -> None:
    """Answer requests (request, limits) from the standard input with what `answer` returns."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    write(replies, READY)
    while (request := read(requests)) is not None:
        wanted, limits = request
        _bound_memory(limits.max_memory_mib)
        signal.setitimer(signal.ITIMER_REAL, limits.timeout_seconds + _ORPHAN_GRACE_SECONDS)
        reply = answer(wanted, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write(replies, reply)


def _bound_memory(mebibytes: int) -> None:
    """Private memory only: libraries, mapped and shared, do not count."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def write(stream: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read(stream: BinaryIO) -> Any | None:
    """The next message, or None at the end of the stream."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return pickle.loads(stream.read(LENGTH.unpack(header)[0]))


if __name__ == "__main__":
    serve()
