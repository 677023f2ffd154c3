"""Blocks of remote files on the local disk, so that what was fetched once is not fetched again.

A machine's processes share one folder. A block is written beside its place and renamed, carries a checksum, and is read
again from the store when it is damaged, so no lock is needed and a killed process does no harm. The cache may always
fail, because the disk is full or the folder belongs to somebody else: then it holds nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from pathlib import Path

BLOCK = 4 * 2**20

_CHECKSUM_BYTES = 4
_BLOCK, _UNFINISHED = ".block", ".part"


class BlockCache:
    """At most `mib` MiB of blocks; the least recently used go first. `folder` None: one in the temporary directory.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = BlockCache(folder, mib=1)
    ...     cache.put("film", b"pictures")
    ...     cache.get("film", 8), cache.get("another", 8)
    (b'pictures', None)
    """

    def __init__(self, folder: str | None, mib: int) -> None:
        self._bound = mib * 2**20
        self._folder = _folder(folder) if mib else None

    def get(self, key: str, length: int) -> bytes | None:
        """The block of `length` bytes that was put under this key, None when there is none, or not a whole one."""
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            stored = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        data, checksum = stored[:-_CHECKSUM_BYTES], stored[-_CHECKSUM_BYTES:]
        return data if len(data) == length and checksum == _checksum(data) else None

    def put(self, key: str, data: bytes) -> None:
        """Keep a block, if there is room for it; never raises."""
        size = len(data) + _CHECKSUM_BYTES
        if self._folder is None or size > self._bound:
            return
        unfinished = None
        try:
            self._make_room(size)
            number, unfinished = tempfile.mkstemp(_UNFINISHED, dir=self._folder)
            with open(number, "wb") as file:
                file.write(data)
                file.write(_checksum(data))
            os.replace(unfinished, self._path(key))
        except OSError:
            if unfinished:
                with contextlib.suppress(OSError):
                    os.unlink(unfinished)

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + _BLOCK)

    def _make_room(self, size: int) -> None:
        """Remove the blocks that were used longest ago, and with them what killed processes left unfinished."""
        assert self._folder is not None
        found = []
        for path in self._folder.iterdir():
            if path.suffix in (_BLOCK, _UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(length for _, length, _ in found) + size
        for _, length, path in sorted(found):
            if total <= self._bound:
                return
            path.unlink(missing_ok=True)
            total -= length


def _folder(setting: str | None) -> Path | None:
    """The folder, made if need be and closed to other users; None when it cannot be used.

    The temporary directory belongs to everybody: a folder that another user put there beforehand is not used.
    """
    base = Path(setting) if setting else Path(tempfile.gettempdir()) / f"avrec-spark-{os.getuid()}"
    folder = base / "blocks"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not setting and (base.is_symlink() or base.stat().st_uid != os.getuid()):
            return None
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")
