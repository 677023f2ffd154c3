"""Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def table(title: str, command: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"## {title}\n", f"`{command}`\n", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
