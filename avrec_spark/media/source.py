"""From a URI to an open container, for files that nobody vouches for.

Two doors are shut before libav sees a byte: only plain local files are opened (a playlist or a `concat:` list could
otherwise reach other files or the network), and only demuxers of real media containers are tried.
"""

from __future__ import annotations

import os
import re
import stat
from urllib.parse import unquote, urlsplit

import av
from av.container import InputContainer

from avrec_spark.media.records import Refusal

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

# Playlists (hls, dash, concat), image sequences and text art are left out: they lead to other files or to nonsense.
_DEMUXERS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,live_flv,asf,ogg,mxf,ivf,gif,h264,hevc,"
    "mp3,aac,wav,w64,flac,aiff,caf,amr,ac3,eac3,ape,wv,au"
)

_LIBAV_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}


def local_path(uri: str) -> str:
    """The absolute local path of a path or `file://` URI.

    Raises `Refusal` (unsupported, protocol) for anything else.

    >>> local_path("file:///data/a%20b.mp4")
    '/data/a b.mp4'
    """
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise Refusal("unsupported", "protocol", f"{uri} names the host {parts.netloc}; only local files are read.")
        return os.path.abspath(unquote(parts.path))
    if match := _PROTOCOL.match(uri):
        raise Refusal("unsupported", "protocol", f"Only local files are read, and {uri} begins with {match.group()}.")
    return os.path.abspath(uri)


def open_container(uri: str) -> InputContainer:
    """The open container of a plain, non-empty local file; raises `Refusal` for everything else."""
    path = local_path(uri)
    _require_plain_file(path)
    try:
        # "file:" keeps libav from reading a protocol into the name; damaged tags must not hide a good picture.
        return av.open(f"file:{path}", options=_LIBAV_OPTIONS, metadata_errors="replace")
    except av.error.ArgumentError:
        raise Refusal("unsupported", "format", "Recognised, but not as audio or video that is decoded here.") from None
    except OSError as error:
        raise Refusal("missing", "unreadable", f"It cannot be read: {error.strerror or error}.", True) from None
    except av.error.FFmpegError:
        raise Refusal("corrupt", *_unreadable(path)) from None


def _require_plain_file(path: str) -> None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal("missing", "not_found", "There is no such file.", retryable=True) from None
    except OSError as error:
        raise Refusal("missing", "unreadable", f"It cannot be read: {error.strerror}.", retryable=True) from None
    except ValueError:
        raise Refusal("missing", "not_found", "The name cannot be that of a file.") from None
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("unsupported", "not_a_file", "It is a folder, pipe or device, not a plain file.")
    if status.st_size == 0:
        raise Refusal("corrupt", "empty", "The file has zero bytes.")


def _unreadable(path: str) -> tuple[str, str]:
    """Reason and detail for a file that no demuxer could open."""
    with open(path, "rb") as file:
        beginning = file.read(12)
    if beginning[4:8] == b"ftyp":
        return "no_index", "It begins like an MP4 file and lacks a readable index, as after an upload that broke off."
    return "not_media", "Its content is not that of any known audio or video container."
