"""What lies outside the lakehouse: which files a source setting means, and whether they have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from avrec_spark.errors import AvrecError, MissingPathError, RetryableError, SettingsError
from avrec_spark.media.records import Refusal
from avrec_spark.media.storage import class_and_code, filesystem, protocol_of, redacted, state_of


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: where it is, its path relative to the source, and what the listing says of it.

    `modified_at` is in seconds since 1970; `version` is an object store's ETag or generation, None elsewhere.
    """

    uri: str
    relative: str
    size: int
    modified_at: float
    version: str | None = None


def require(setting: str, source: str | None) -> str:
    """The source; raises a named error when it is not set, does not exist or cannot be reached."""
    if source is None:
        raise SettingsError(f"{setting} is not set.", f"Say where to read from: --set {setting}=PATH.")
    if redacted(source) != source:
        raise SettingsError(
            f"{setting} is {redacted(source)} and holds credentials, which would end in manifests and logs.",
            "Give them in the environment (AWS_ACCESS_KEY_ID and so on), and the URI without them.",
        )
    with _named_errors(source):
        fs, path = _reach(source)
        exists = fs.exists(path)
    if not exists:
        raise MissingPathError(setting, source)
    return source


def files(source: str) -> list[SourceFile]:
    """The files of a folder, at any depth, in a fixed order; or the one file that the source is.

    One listing tells all of it, also in an object store, and it is a fresh one. URIs begin as the source does; those
    of local files are absolute paths. Hidden files and folders (a leading dot) are a file system's own and are passed
    over.
    """
    with _named_errors(source):
        fs, path = _reach(source)
        fs.invalidate_cache()
        if fs.isfile(path):
            found = {path: fs.info(path)}
            base = path.rsplit("/", 1)[0]
            root = source.rsplit("/", 1)[0]
        else:
            found = fs.find(path, detail=True)
            base = path.rstrip("/")
            root = source.rstrip("/")
    local = protocol_of(source) == "file"
    listed = []
    for name, info in sorted(found.items()):
        relative = name[len(base) + 1 :]
        # An object whose key ends in a slash stands for a folder.
        if info.get("type") == "directory" or not relative or relative.endswith("/"):
            continue
        if any(part.startswith(".") for part in Path(relative).parts):
            continue
        state = state_of(info)
        listed.append(
            SourceFile(
                uri=name if local else f"{root}/{relative}",
                relative=relative,
                size=state.size,
                modified_at=state.modified_at.timestamp(),
                version=None if local else state.version,
            )
        )
    return listed


def fingerprint(source: str) -> str:
    """A hash over names, sizes, times and versions; changes when any file comes, goes or is edited."""
    digest = hashlib.sha256()
    for file in files(source):
        digest.update(f"{file.relative}\t{file.size}\t{file.modified_at}\t{file.version}\n".encode())
    return digest.hexdigest()[:16]


def _reach(source: str) -> tuple[Any, str]:
    if protocol_of(source) == "file":
        fs, path = fsspec.core.url_to_fs(source)
        return fs, str(path)
    return filesystem(source)


@contextmanager
def _named_errors(source: str) -> Iterator[None]:
    """Errors of a store as ours, told by class and code: its text may hold credentials."""
    try:
        yield
    except AvrecError:
        raise
    except Refusal as refusal:
        raise SettingsError(f"{redacted(source)} cannot be read from.", refusal.detail) from None
    except Exception as error:
        what = f"{redacted(source)} cannot be listed: {class_and_code(error)}."
        if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            remedy = (
                "Check the permissions of the source, and the store's credentials in the environment (AWS_* for s3)."
            )
            raise AvrecError(what, remedy) from None
        raise RetryableError(what, "Check that the store can be reached from here, then try again.") from None
