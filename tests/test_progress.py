from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from avrec_spark import progress
from avrec_spark.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is: the last of the list."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def noted(terminal: bool, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The notes of a job of 12 epochs of ten seconds each."""
    notes: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda self, job, text: notes.append(text))
    step = Progress(Console(force_terminal=terminal, quiet=True)).steps("train")
    for epoch in range(1, 13):
        clock.append(clock[-1] + 10)
        step(f"epoch {epoch}", epoch == 11)
    return notes


def test_a_terminal_sees_every_step(clock: list[float], monkeypatch: Any) -> None:
    assert len(noted(True, clock, monkeypatch)) == 12


def test_a_log_gets_a_step_every_half_minute_and_the_last_one(clock: list[float], monkeypatch: Any) -> None:
    assert noted(False, clock, monkeypatch) == ["epoch 3", "epoch 6", "epoch 9", "epoch 11"]
