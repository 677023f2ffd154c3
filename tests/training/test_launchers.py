"""One conformance test for every launcher: the same global batches give the same loss curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avrec_spark.errors import NotEnoughSlotsError, RanksNotStartedError, SettingsError
from avrec_spark.training import launchers
from avrec_spark.training.launchers import horovod

STEPS, BATCH = 6, 8


def losses_of_least_squares(config, ranks):
    """Gradient descent on y = 3x − 1; each rank takes its part of every global batch."""
    generator = np.random.default_rng(config["seed"])
    x = torch.from_numpy(generator.normal(size=(STEPS, BATCH, 1)).astype("f4"))
    # Another start on every rank: rank 0's must count.
    torch.manual_seed(ranks.rank)
    module = torch.nn.Linear(1, 1)
    optimizer = ranks.optimizer(torch.optim.SGD(module.parameters(), lr=0.1), module)
    part = BATCH // ranks.size
    losses = []
    for step in range(STEPS):
        mine = x[step, ranks.rank * part : (ranks.rank + 1) * part]
        optimizer.zero_grad()
        loss = torch.square(module(mine) - (3 * mine - 1)).mean()
        loss.backward()
        optimizer.step()
        losses.append(ranks.mean(float(loss.detach())))
    # Ranks that hold values of different types must not wait for each other.
    stop = ranks.from_first(1.5 if ranks.rank == 0 else None)
    return losses, ranks.size, stop


@pytest.fixture(scope="module")
def alone():
    return launchers.create("in-process").launch(losses_of_least_squares, {"seed": 1}, 1)[0]


@pytest.mark.parametrize(("name", "workers"), [("in-process", 1), ("horovod", 2)])
def test_the_same_global_batches_give_the_same_loss_curve(spark, alone, name, workers):
    losses, size, stop = launchers.create(name).launch(losses_of_least_squares, {"seed": 1}, workers)
    assert size == workers
    assert losses == pytest.approx(alone, rel=1e-4)
    assert losses[-1] < losses[0]
    assert stop == 1.5


def test_an_unknown_launcher_is_refused_by_the_settings():
    from avrec_spark import config

    with pytest.raises(SettingsError, match=r"train\.launcher"):
        config.load(overrides=["train.launcher=mpi"], environment={})


def test_ranks_that_are_too_late_are_not_mistaken_for_lacking_slots(spark, monkeypatch):
    import horovod.spark
    from horovod.runner.common.util.timeout import TimeoutException

    def too_late(*arguments, **options):
        raise TimeoutException("Timed out waiting for Spark tasks to start.")

    monkeypatch.setattr(horovod.spark, "run", too_late)
    with pytest.raises(RanksNotStartedError, match="2 ranks .* did not all start within 7 s") as error:
        launchers.create("horovod", 7).launch(losses_of_least_squares, {"seed": 1}, 2)
    assert "Raise train.start_timeout_seconds" in str(error.value)
    assert error.value.retryable


def test_more_ranks_than_slots_are_refused_with_both_numbers(spark):
    with pytest.raises(NotEnoughSlotsError, match="needs 3 task slots at once, one a rank, and .* has 2 free") as error:
        horovod.require_slots(spark.sparkContext, 3, patience_seconds=60)
    assert error.value.retryable
