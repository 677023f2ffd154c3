"""Which code a run was made with."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path

import avrec_spark


@cache
def code_version() -> dict[str, str]:
    """The package's version, in a checkout the commit (`-dirty` where files differ from it), and Python's version."""
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "code_version": avrec_spark.__version__,
        "code_commit": commit.stdout.strip() if commit.returncode == 0 else "unknown",
        "python": platform.python_version(),
    }
