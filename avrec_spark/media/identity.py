"""What makes two files the same file: their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from avrec_spark.media.source import local_path


def content_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex; read in pieces, so that size does not matter.

    Takes a local path or a `file://` URI. Raises `OSError` when the file cannot be read.
    """
    with open(local_path(str(path)), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
