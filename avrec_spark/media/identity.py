"""What makes two files the same file: their bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from avrec_spark.media.blocks import BLOCK
from avrec_spark.media.records import Limits, Refusal
from avrec_spark.media.source import local_path
from avrec_spark.media.storage import RemoteFile, info_of, require_allowed

_ETAG = re.compile(r'"?([0-9a-f]{32}(?:-\d+)?)"?')


def content_hash(uri: str | Path, limits: Limits | None = None) -> str:
    """A name for the content of a file: files of one name have the same bytes.

    | file | name |
    |---|---|
    | local, or in a store without the checksums below | SHA-256, in hex; all of the file is read, in pieces |
    | s3 | `etag:ETAG-SIZE`; one request. The ETag is the MD5 of the object, or that of its parts' MD5s |
    | gs, abfs | `md5:HEX`, the MD5 that the store keeps; one request |

    So an object is not downloaded to learn its name. The reverse does not hold: the same bytes uploaded in other parts,
    encrypted with a key of KMS, or lying in another kind of place have another name, and are described twice. CRC32C,
    which gs has for objects put together from others, is too short for a name. MD5 does not withstand somebody who
    makes two files of one name on purpose; what they win is that one is described like the other.

    Raises `Refusal` when the file cannot be read or may not be read.
    """
    uri, limits = str(uri), limits or Limits()
    protocol = require_allowed(uri, limits)
    if protocol != "file":
        return _stored_name(protocol, info_of(uri)) or _sha256(RemoteFile(uri, limits))
    try:
        with open(local_path(uri), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise Refusal("missing", "not_found", "There is no such file.", retryable=True) from None
    except OSError as error:
        raise Refusal("missing", "unreadable", f"It cannot be read: {error.strerror}.", retryable=True) from None


def _stored_name(protocol: str, info: dict[str, Any]) -> str | None:
    """The name that follows from a store's own checksum, None when it has none."""
    if protocol in ("s3", "s3a") and (match := _ETAG.fullmatch(str(info.get("ETag")))):
        return f"etag:{match.group(1)}-{info['size']}"
    if protocol in ("gs", "gcs", "abfs", "abfss", "az"):
        md5 = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
        if md5:
            return f"md5:{(base64.b64decode(md5) if isinstance(md5, str) else bytes(md5)).hex()}"
    return None


def _sha256(file: RemoteFile) -> str:
    digest = hashlib.sha256()
    while piece := file.read(BLOCK):
        digest.update(piece)
    return digest.hexdigest()
