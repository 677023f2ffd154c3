"""What lies outside the lakehouse: which files a source setting means, and whether they have changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import fsspec

from avrec_spark.errors import MissingPathError, SettingsError


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: where it is, and its path relative to the source."""

    uri: str
    relative: str
    size: int
    modified_at: float


def require(setting: str, source: str | None) -> str:
    """The source; raises a named error when it is not set or does not exist."""
    if source is None:
        raise SettingsError(f"{setting} is not set.", f"Say where to read from: --set {setting}=PATH.")
    fs, path = fsspec.core.url_to_fs(source)
    if not fs.exists(path):
        raise MissingPathError(setting, source)
    return source


def files(source: str) -> list[SourceFile]:
    """The files of a folder, at any depth, in a fixed order; or the one file that the source is.

    Hidden files and folders (a leading dot) are a file system's own and are passed over.
    """
    fs, path = fsspec.core.url_to_fs(source)
    if fs.isfile(path):
        found = {path: fs.info(path)}
        base = path.rsplit("/", 1)[0]
    else:
        found = fs.find(path, detail=True)
        base = path.rstrip("/")
    return [
        SourceFile(
            uri=fs.unstrip_protocol(name) if "file" not in _protocols(fs) else name,
            relative=name[len(base) + 1 :],
            size=int(info.get("size") or 0),
            modified_at=_modified(info),
        )
        for name, info in sorted(found.items())
        if not any(part.startswith(".") for part in Path(name[len(base) + 1 :]).parts)
    ]


def fingerprint(source: str) -> str:
    """A hash over names, sizes and modification times; changes when any file comes, goes or is edited."""
    digest = hashlib.sha256()
    for file in files(source):
        digest.update(f"{file.relative}\t{file.size}\t{file.modified_at}\n".encode())
    return digest.hexdigest()[:16]


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _modified(info: dict[str, object]) -> float:
    """Modification time as epoch seconds; local files have `mtime`, object stores `LastModified`."""
    value = info.get("mtime") or info.get("LastModified") or 0.0
    return float(value.timestamp()) if hasattr(value, "timestamp") else float(str(value))
