"""Media in object stores and other places that fsspec reaches: what is known of a file, and reading it by range.

Which places may be read from is a setting (`Limits.protocols`). Credentials come from the environment, in the way of
each store's own library (`AWS_*` with `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_*`,
`FSSPEC_*`); they never belong in a URI, which ends in tables, logs and reports. For the same reason an error of a store
is told by its class and code only: its text may hold whatever was sent.
"""

from __future__ import annotations

import errno
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import fsspec

from avrec_spark.errors import MissingExtraError
from avrec_spark.media.blocks import BLOCK, BlockCache
from avrec_spark.media.records import Limits, Refusal

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
_LIBRARIES = {"s3": "s3fs", "gcs": "gcsfs", "azure": "adlfs"}
# An s3fs file asks for the version that it was opened with; of other stores every block's version is checked.
_CONDITIONAL = ("s3", "s3a")

# In abfs://container@account the part before the @ is the container.
_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/?#]*@|[^/?#@:]*:(?!\d+(?:[/?#]|$))[^@]*@)",
)
_AZURE = ("abfs", "abfss", "wasb", "wasbs")
_SIGNED = re.compile(
    r"(?<=[?&;#])(?P<name>[^=&;#]*(?:signature|credential|token|secret|passw|access_?key|api_?key)[^=&;#]*|sig|pwd|auth)"
    r"=[^&;#]*",
    re.IGNORECASE,
)

_EPOCH = datetime.fromtimestamp(0, UTC)
# Kept in memory: tracks are interleaved, and an index lies at one end of a file.
_BLOCKS_IN_MEMORY = 4


class FileState(NamedTuple):
    """What tells whether a file has changed: bytes, time (1970 where the store tells none) and the store's version."""

    size: int
    modified_at: datetime
    version: str | None = None


def protocol_of(uri: str) -> str:
    """The protocol that a URI begins with, in lower case; `file` for a path.

    >>> protocol_of("S3://films/a.mp4"), protocol_of("/films/a.mp4"), protocol_of("concat:a.ts|b.ts")
    ('s3', 'file', 'concat')
    """
    match = _PROTOCOL.match(uri)
    return match.group(1).lower() if match else "file"


def redacted(uri: str) -> str:
    """The URI without user names, passwords, keys and signatures; any other URI, and a path, as it is.

    >>> redacted("s3://KEY:SECRET@films/a.mp4")
    's3://***@films/a.mp4'
    >>> redacted("https://films.example/a.mp4?part=1&X-Amz-Signature=0f3a")
    'https://films.example/a.mp4?part=1&X-Amz-Signature=***'
    >>> redacted("abfs://films@account.dfs.core.windows.net/a.mp4")
    'abfs://films@account.dfs.core.windows.net/a.mp4'
    """
    if "://" not in uri:
        return uri
    return _SIGNED.sub(r"\g<name>=***", _USER.sub(_without_user, uri))


def _without_user(match: re.Match[str]) -> str:
    container = match["scheme"].lower() in _AZURE and ":" not in match["user"]
    return match.group() if container else f"{match['scheme']}://***@"


def require_allowed(uri: str, limits: Limits) -> str:
    """The protocol of the URI; raises `Refusal` when it is not allowed, or when the URI holds credentials."""
    shown, protocol = redacted(uri), protocol_of(uri)
    if shown != uri:
        raise Refusal(
            "unsupported",
            "credentials_in_uri",
            f"{shown} holds credentials, which would end in tables and reports; they belong in the environment.",
        )
    if protocol not in limits.protocols:
        allowed = ", ".join(limits.protocols) or "none"
        raise Refusal(
            "unsupported", "protocol", f"{shown} begins with {protocol}:, and the allowed ones are {allowed}."
        )
    return protocol


def filesystem(uri: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a URI with `://`.

    fsspec would read more into a URI: `::` chains other places to it. Here all of it names one file of one store.
    Raises `Refusal` (unsupported, protocol) where fsspec has no such protocol, `MissingExtraError` where its library is
    not installed.
    """
    protocol = protocol_of(uri)
    uri = protocol + uri[len(protocol) :]
    if not uri.startswith(f"{protocol}://"):
        raise Refusal("unsupported", "protocol", f"{redacted(uri)} is not of the form {protocol}://…")
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError:
        if extra := _EXTRAS.get(protocol):
            raise MissingExtraError(f"Reading {protocol}:// URIs", _LIBRARIES[extra], extra) from None
        detail = f"The library that fsspec needs for {protocol}: is not installed."
        raise Refusal("unsupported", "protocol", detail) from None
    except ValueError:
        raise Refusal("unsupported", "protocol", f"{protocol}: is no place that fsspec can read from.") from None
    return kind(**kind._get_kwargs_from_urls(uri)), kind._strip_protocol(uri)


def state_of(info: dict[str, Any]) -> FileState:
    """What a listing or `info` of fsspec says of a file: stores have different names for the same things."""
    return FileState(int(info.get("size") or 0), _modified(info), _version(info))


def _modified(info: dict[str, Any]) -> datetime:
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    value = next((info[name] for name in names if info.get(name)), None)
    if isinstance(value, int | float):
        return datetime.fromtimestamp(int(value * 1e6) / 1e6, UTC)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return _EPOCH
    if not isinstance(value, datetime):
        return _EPOCH
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _version(info: dict[str, Any]) -> str | None:
    for name in ("ETag", "etag", "generation"):
        if info.get(name):
            return str(info[name]).strip('"')
    return None


def info_of(uri: str) -> dict[str, Any]:
    """What the store says of a file now; raises `Refusal` unless it is a plain file that may be read."""
    with refusals():
        fs, path = filesystem(uri)
        fs.invalidate_cache(path)
        info = dict(fs.info(path))
    _require_file(info)
    return info


def _require_file(info: dict[str, Any]) -> None:
    if info.get("type") == "directory":
        raise not_a_file()


@contextmanager
def refusals() -> Iterator[None]:
    """What goes wrong between here and a store, as a `Refusal` that holds no text of the store."""
    try:
        yield
    except (Refusal, MissingExtraError, MemoryError):
        raise
    except FileNotFoundError:
        raise Refusal("missing", "not_found", "There is no such file.", retryable=True) from None
    except Exception as error:
        if type(error).__name__ == "FileExpired":
            raise changed() from None
        raise Refusal("missing", "unreadable", f"It cannot be read: {class_and_code(error)}.", retryable=True) from None


def not_a_file() -> Refusal:
    return Refusal("unsupported", "not_a_file", "It is a bucket or a folder, not a file.")


def changed() -> Refusal:
    return Refusal("missing", "changed", "It changed while it was read.", retryable=True)


def class_and_code(error: BaseException) -> str:
    """What may be told of a store's error, such as `PermissionError (SignatureDoesNotMatch)`.

    >>> class_and_code(ConnectionRefusedError(111, "secret"))
    'ConnectionRefusedError (ECONNREFUSED)'
    """
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        for name in ("status", "status_code", "code", "error_code"):
            code = code or getattr(cause, name, None)
        if isinstance(cause, OSError) and not code:
            code = errno.errorcode.get(cause.errno or 0)
        # Codes are numbers or single words; whatever else is there might be a text.
        if code and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", str(code)):
            return f"{type(error).__name__} ({code})"
        cause = cause.__cause__
    return type(error).__name__


class RemoteFile:
    """A file of a store, read in blocks of 4 MiB through a `BlockCache`: what libav and hashlib need of a file.

    Opening it takes one request. `read` raises `Refusal`: missing (unreadable) when the store cannot be reached,
    missing (changed) when the file is not the one that was opened. For use by one thread.
    """

    def __init__(self, uri: str, limits: Limits) -> None:
        self._conditional = protocol_of(uri) in _CONDITIONAL
        with refusals():
            self._fs, self._path = filesystem(uri)
            self._fs.invalidate_cache(self._path)
            if self._conditional and "/" not in self._path:
                raise not_a_file()
            self._file = self._fs.open(self._path, "rb", block_size=BLOCK, cache_type="none")
            info = self._file.details if self._conditional else self._fs.info(self._path)
        _require_file(info)
        if info.get("size") is None:
            raise Refusal(
                "unsupported", "not_a_file", "The store does not tell its size, so it cannot be read by range."
            )
        self.state = state_of(info)
        # libav looks at the ending only.
        self.name = "media" + "".join(re.findall(r"\.[A-Za-z0-9]{1,8}$", self._path))
        # A version, or at least a time, keeps the blocks of two files of one name apart.
        known = self.state.version or self.state.modified_at != _EPOCH
        self._cache = BlockCache(limits.cache_folder, limits.cache_mib if known else 0)
        self._key = f"{uri}\n{self.state.size}\n{self.state.version}\n{self.state.modified_at.timestamp()}"
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most to the end of a block (all that are left: -1); empty at the end of the file."""
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK), b""))
        if self._position >= self.state.size or size == 0:
            return b""
        index, offset = divmod(self._position, BLOCK)
        piece = self._block(index)[offset : offset + size]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self.state.size)[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def _block(self, index: int) -> bytes:
        if index in self._recent:
            self._recent.move_to_end(index)
            return self._recent[index]
        length = min(BLOCK, self.state.size - index * BLOCK)
        key = f"{self._key}\n{index}"
        data = self._cache.get(key, length)
        if data is None:
            data = self._fetch(index * BLOCK, length)
            self._cache.put(key, data)
        self._recent[index] = data
        if len(self._recent) > _BLOCKS_IN_MEMORY:
            self._recent.popitem(last=False)
        return data

    def _fetch(self, start: int, length: int) -> bytes:
        with refusals():
            self._file.seek(start)
            data = bytes(self._file.read(length))
            if not self._conditional:
                self._fs.invalidate_cache(self._path)
                if state_of(self._fs.info(self._path)) != self.state:
                    raise changed()
        if len(data) != length:
            raise changed()
        return data
