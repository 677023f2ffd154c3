"""From a URI to an open container, for files that nobody vouches for.

Three doors are shut before libav sees a byte: only plain files are opened, and only of the protocols that the settings
allow (a `concat:` list could otherwise reach other files or the network); only demuxers of real media containers are
tried, so that a playlist is not one; and a file of an object store is read by Python, libav itself may open nothing.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import av
from av.container import InputContainer

from avrec_spark.media.records import Limits, Refusal
from avrec_spark.media.storage import FileState, RemoteFile, info_of, protocol_of, redacted, require_allowed, state_of

# Playlists (hls, dash, concat), image sequences and text art are left out: they lead to other files or to nonsense.
_DEMUXERS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,live_flv,asf,ogg,mxf,ivf,gif,h264,hevc,"
    "mp3,aac,wav,w64,flac,aiff,caf,amr,ac3,eac3,ape,wv,au"
)

_LOCAL = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
# No protocol has this name.
_REMOTE = {"protocol_whitelist": "none", "format_whitelist": _DEMUXERS}
_BUFFER = 1 << 18


def local_path(uri: str) -> str:
    """The absolute local path of a path or `file://` URI.

    Raises `Refusal` (unsupported, protocol) for anything else.

    >>> local_path("file:///data/a%20b.mp4")
    '/data/a b.mp4'
    """
    if protocol_of(uri) != "file":
        raise Refusal("unsupported", "protocol", f"{redacted(uri)} is not a local file.")
    if not uri.startswith("file:"):
        return os.path.abspath(uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise Refusal("unsupported", "protocol", f"{redacted(uri)} names a host; only this machine's files are read.")
    return os.path.abspath(unquote(parts.path))


def open_container(uri: str, limits: Limits) -> InputContainer:
    """The open container of a plain, non-empty file; raises `Refusal` for everything else.

    The file is read through fsspec, in blocks, unless it is local. Raises `MissingExtraError` when the library for its
    store is not installed. A `Refusal` may also come out of every later call that reads from the container, when a
    store fails or the file changes there.
    """
    if require_allowed(uri, limits) == "file":
        path = local_path(uri)
        _require_media_size(_plain_file(path).st_size, limits)
        # "file:" keeps libav from reading a protocol into the name.
        return _open(f"file:{path}", _LOCAL, lambda: _beginning(path))
    file = RemoteFile(uri, limits)
    _require_media_size(file.state.size, limits)
    return _open(file, _REMOTE, lambda: file.read(12) if file.seek(0) == 0 else b"")


def stat(uri: str, limits: Limits) -> FileState | Refusal:
    """Size, time and version of a plain file, without reading it; a `Refusal` (returned, not raised) for others."""
    try:
        if require_allowed(uri, limits) == "file":
            status = _plain_file(local_path(uri))
            return FileState(status.st_size, datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC))
        return state_of(info_of(uri))
    except Refusal as refusal:
        return refusal


def _open(file: str | RemoteFile, options: dict[str, str], beginning: Callable[[], bytes]) -> InputContainer:
    try:
        # Damaged tags must not hide a good picture.
        return av.open(file, options=options, metadata_errors="replace", buffer_size=_BUFFER)
    except av.error.ArgumentError:
        raise Refusal("unsupported", "format", "Recognised, but not as audio or video that is decoded here.") from None
    except OSError as error:
        raise Refusal("missing", "unreadable", f"It cannot be read: {error.strerror or error}.", True) from None
    except av.error.FFmpegError:
        raise Refusal("corrupt", *_unreadable(beginning())) from None


def _plain_file(path: str) -> os.stat_result:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal("missing", "not_found", "There is no such file.", retryable=True) from None
    except OSError as error:
        raise Refusal("missing", "unreadable", f"It cannot be read: {error.strerror}.", retryable=True) from None
    except ValueError:
        raise Refusal("missing", "not_found", "The name cannot be that of a file.") from None
    if not modes.S_ISREG(status.st_mode):
        raise Refusal("unsupported", "not_a_file", "It is a folder, pipe or device, not a plain file.")
    return status


def _require_media_size(size: int, limits: Limits) -> None:
    if size == 0:
        raise Refusal("corrupt", "empty", "The file has zero bytes.")
    if size > limits.max_bytes:
        detail = f"It has {size} bytes, and features.max_bytes allows {limits.max_bytes}."
        raise Refusal("too_large", "too_many_bytes", detail)


def _beginning(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(12)


def _unreadable(beginning: bytes) -> tuple[str, str]:
    """Reason and detail for a file that no demuxer could open."""
    if beginning[4:8] == b"ftyp":
        return "no_index", "It begins like an MP4 file and lacks a readable index, as after an upload that broke off."
    return "not_media", "Its content is not that of any known audio or video container."
