"""Decoding in a child process, so that a file can neither hang nor kill the caller.

The child is a fresh interpreter started with `subprocess`: `multiprocessing` refuses children to daemonic processes, as
Spark's Python workers may be, and a fork would inherit torch's threads. It imports PyAV, OpenCV and numpy only, serves
many files, and is replaced after a crash or a timeout.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from avrec_spark.errors import DecoderStartError
from avrec_spark.media.records import DecodedMedia, Limits, Refusal, Request
from avrec_spark.media.worker import LENGTH, READY, write

START_SECONDS = 60.0
_PIECE = 1 << 20


class _ChildEnded(Exception):
    """The child closed its pipe: it has died or is dying."""


class Decoder:
    """`decode.decode` behind a watchdog. A context manager; for use by one thread.

    `command` starts the child and defaults to `python -m avrec_spark.media.worker`; any program that speaks the
    protocol of `worker.serve` will do.
    """

    def __init__(self, limits: Limits, command: Sequence[str] | None = None) -> None:
        self.limits = limits
        self._command = list(command) if command else [sys.executable, "-m", "avrec_spark.media.worker"]
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the child, None when there is none at the moment."""
        return self._child.pid if self._child else None

    def decode(self, request: Request) -> DecodedMedia:
        """As `decode.decode`; a hang becomes the status timeout, a crash corrupt (decoder_crashed).

        Raises `DecoderStartError` when a child cannot be started at all.
        """
        child = self._running_child()
        started = time.perf_counter()
        try:
            assert child.stdin is not None
            write(child.stdin, (request, self.limits))  # type: ignore[arg-type]
            reply = _receive(child, self.limits.timeout_seconds)
        except TimeoutError:
            self._end()
            detail = f"Decoding took longer than {self.limits.timeout_seconds:g} s and was stopped."
            return self._lost(Refusal("timeout", "timeout", detail, retryable=True), request, started)
        except (_ChildEnded, BrokenPipeError):
            code = self._end(grace=1.0)  # It is exiting already; let it tell how.
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            detail = f"The decoder died while reading it ({how})."
            return self._lost(Refusal("corrupt", "decoder_crashed", detail, retryable=True), request, started)
        assert isinstance(reply, DecodedMedia)
        return reply

    @staticmethod
    def _lost(refusal: Refusal, request: Request, started: float) -> DecodedMedia:
        media = refusal.as_media()
        media.part = request.part
        media.seconds_spent = time.perf_counter() - started
        return media

    def close(self) -> None:
        """End the child; a later `decode` starts another."""
        if self._child:
            self._end()

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child and self._child.poll() is None:
            return self._child
        self.close()
        # The child finds the package wherever this process found it, also in files shipped with a Spark job.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        try:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            if _receive(self._child, START_SECONDS) != READY:
                raise DecoderStartError(self._command, "it did not greet")
        except OSError as error:  # TimeoutError is one of them
            self.close()
            raise DecoderStartError(self._command, error.strerror or "it did not greet in time") from None
        except _ChildEnded:
            raise DecoderStartError(self._command, f"it ended with exit code {self._end(grace=1.0)}") from None
        return self._child

    def _end(self, grace: float = 0.0) -> int:
        """End the child, release its pipes, return its exit code (negative: the signal that killed it)."""
        child, self._child = self._child, None
        assert child is not None
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        return child.returncode


def _receive(child: subprocess.Popen[bytes], seconds: float) -> Any:
    """The child's next message; `TimeoutError` after `seconds`, `_ChildEnded` when its pipe closes first."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    deadline = time.monotonic() + seconds
    length = LENGTH.unpack(_read_exactly(descriptor, LENGTH.size, deadline))[0]
    return pickle.loads(_read_exactly(descriptor, length, deadline))


def _read_exactly(descriptor: int, count: int, deadline: float) -> bytes:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = bytearray()
    while len(data) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise TimeoutError
        piece = os.read(descriptor, min(_PIECE, count - len(data)))
        if not piece:
            raise _ChildEnded
        data += piece
    return bytes(data)
