from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrec_spark.media.cost import estimate_seconds
from avrec_spark.media.identity import content_hash


def test_the_hash_is_that_of_the_bytes_whatever_the_name(tmp_path):
    content = b"same bytes" * 300_000
    first, second = tmp_path / "a.mp4", tmp_path / "b c.bin"
    first.write_bytes(content)
    second.write_bytes(content)

    assert content_hash(first) == content_hash(second.as_uri()) == hashlib.sha256(content).hexdigest()


def test_a_changed_byte_changes_the_hash(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    before = content_hash(path)
    path.write_bytes(b"two")
    assert content_hash(path) != before


def test_a_file_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        content_hash(tmp_path / "gone")


@given(st.integers(0, 10**12), st.integers(0, 10**9))
def test_a_larger_file_never_costs_less(size, more):
    assert 0 < estimate_seconds(size) <= estimate_seconds(size + more)
