"""Folders of weights that a setting names: whether one is there, and which weights they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from avrec_spark.errors import SettingsError

_CHUNK = 2**20


def weights_folder(setting: str, path: str, needed: Iterable[tuple[str, ...]]) -> Path:
    """The folder, which holds one file of each group of patterns in `needed`; a `SettingsError` otherwise.

    >>> weights_folder("features.whisper_model", "/nowhere", [("model.bin",)])
    Traceback (most recent call last):
    avrec_spark.errors.SettingsError: features.whisper_model names the folder /nowhere, which does not exist. ...
    """
    folder = Path(path)
    if not folder.is_dir():
        raise SettingsError(
            f"{setting} names the folder {path}, which does not exist.",
            f"Put there a folder with {_all(needed)}; on a cluster, on every worker.",
        )
    missing = [patterns for patterns in needed if not any(True for name in patterns for _ in folder.glob(name))]
    if missing:
        holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise SettingsError(
            f"{setting} names the folder {path}, which holds no model: looked for {_all(missing)}, found {holds}.",
            f"A model's folder has {_all(needed)}.",
        )
    return folder


def fingerprint(folder: Path, patterns: Iterable[str]) -> str:
    """12 hex digits that change with a byte of any file that matches; read once a process while the files stay."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:12]


def _all(groups: Iterable[tuple[str, ...]]) -> str:
    return " and ".join(" or ".join(patterns) for patterns in groups)
