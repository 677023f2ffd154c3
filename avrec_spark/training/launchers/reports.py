"""What rank 0 says of its epochs, brought to the driver over a connection of the driver's host."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

from avrec_spark.training.ranks import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reporter:
    """A report function that can be pickled: it sends the figures to the driver. Nothing of training depends on it."""

    address: tuple[str, int]
    key: bytes

    def __call__(self, figures: Mapping[str, float]) -> None:
        try:
            with Client(self.address, authkey=self.key) as connection:
                # Text, because the other side must not unpickle what a stranger sends.
                connection.send_bytes(json.dumps(figures).encode())
        except (OSError, EOFError, AuthenticationError) as error:
            logger.warning("the driver does not hear of this epoch: %s", error)


@contextmanager
def reports(report: Report | None, host: str) -> Iterator[Reporter | None]:
    """A reporter whose figures `report` gets in this process; `host` is the driver's, as executors know it."""
    if report is None:
        yield None
        return
    key = secrets.token_bytes(32)
    with Listener((host, 0), authkey=key) as listener:
        ended = threading.Event()
        thread = threading.Thread(target=_listen, args=(listener, report, ended), daemon=True)
        thread.start()
        try:
            yield Reporter((host, listener.address[1]), key)
        finally:
            ended.set()
            # Wakes the listener, which waits for the next connection.
            with suppress(OSError, EOFError, AuthenticationError), Client(listener.address, authkey=key):
                pass
            thread.join(timeout=10)


def _listen(listener: Listener, report: Report, ended: threading.Event) -> None:
    while True:
        try:
            with listener.accept() as connection:
                if ended.is_set():
                    return
                report(json.loads(_received(connection)))
        except (OSError, EOFError, AuthenticationError, ValueError) as error:
            logger.warning("a report of an epoch was lost: %s", error)
            if ended.is_set():
                return


def _received(connection: Connection) -> bytes:
    return connection.recv_bytes(1 << 20)
