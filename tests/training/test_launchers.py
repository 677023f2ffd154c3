"""One conformance test for every launcher: the same global batches give the same loss curve."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark import cloudpickle

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError, NotEnoughSlotsError, RanksLostError, RanksNotStartedError, SettingsError
from avrec_spark.models.fusion import Fusion
from avrec_spark.models.fusion.module import FusionModule
from avrec_spark.models.mf import FactorModule
from avrec_spark.models.transformer import Transformer, TransformerModule
from avrec_spark.training import launchers, loop
from avrec_spark.training.gradients import Gradients
from avrec_spark.training.launchers import slots

STEPS, BATCH, ROWS = 6, 8, 500
# Spark's workers know no test modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def everything_that_ranks_do(config, ranks):
    """All checks of a launcher in one launch, because a launch takes seconds."""
    return {
        "size": ranks.size,
        "losses": losses_of_least_squares(ranks),
        "table": a_table_that_few_rows_touch(ranks),
        # Ranks that hold values of different types must not wait for each other.
        "first": ranks.from_first(1.5 if ranks.rank == 0 else None),
        "whole": loop.train(config["whole"], ranks).history,
        "short": loop.train(config["short"], ranks).history,
        "started": loop.train(config["started"], ranks),
        "sequences": loop.train(config["sequences"], ranks).history,
    }


def losses_of_least_squares(ranks):
    """Gradient descent on y = 3x − 1; each rank takes its part of every global batch."""
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(STEPS, BATCH, 1)).astype("f4"))
    # Another start on every rank: rank 0's must count.
    torch.manual_seed(ranks.rank)
    module = torch.nn.Linear(1, 1)
    ranks.share(module)
    gradients, optimizer = Gradients(module, ranks), torch.optim.SGD(module.parameters(), lr=0.1)
    part = BATCH // ranks.size
    losses = []
    for step in range(STEPS):
        mine = x[step, ranks.rank * part : (ranks.rank + 1) * part]
        optimizer.zero_grad()
        loss = torch.square(module(mine) - (3 * mine - 1)).mean()
        loss.backward()
        gradients.average()
        optimizer.step()
        losses.append(ranks.mean(float(loss.detach())))
    return losses


def a_table_that_few_rows_touch(ranks):
    """The table after some steps, whether it travelled by rows, and how many bytes a step moved."""
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Embedding(ROWS, 4), torch.nn.Linear(4, 1))
    gradients, optimizer = Gradients(module, ranks), torch.optim.AdamW(module.parameters(), lr=0.1)
    rows = torch.from_numpy(np.random.default_rng(2).integers(0, ROWS, (STEPS, BATCH)))
    part = BATCH // ranks.size
    for step in range(STEPS):
        optimizer.zero_grad()
        # In the last step the last rank has nothing to do, and must not keep the others.
        if step < STEPS - 1 or ranks.rank == 0:
            mine = rows[step, ranks.rank * part : (ranks.rank + 1) * part]
            mine = mine if step < STEPS - 1 else rows[step]
            share = len(mine) / BATCH * ranks.size
            (module(mine).square().mean() * share).backward()
        gradients.average()
        optimizer.step()
    return module[0].weight.detach().numpy(), len(gradients.by_rows), gradients.bytes_per_step


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Users of three tastes; the row groups are of very unequal size, so that the second of two ranks gets 7 rows."""
    folder = tmp_path_factory.mktemp("snapshot")
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(90), 8)
    pairs = pd.DataFrame({"user_id": users, "item_id": users % 3 * 10 + generator.integers(0, 10, len(users))})
    late = generator.random(len(pairs)) < 0.2
    known = TrainingSet.from_frames(pairs[~late], validation=pairs[late]).write(folder)
    (part,) = (folder / "train").glob("*.parquet")
    table = pq.read_table(part)
    with pq.ParquetWriter(part, table.schema) as writer:
        for rows in (table.slice(7), table.slice(0, 7)):
            writer.write_table(pa.Table.from_batches(rows.combine_chunks().to_batches()))
    return known


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A fusion network that begins, on all ranks, with what an earlier fit has learnt."""
    generator = np.random.default_rng(5)
    vectors = {
        name: pd.DataFrame({"item_id": range(30), "vector": list(generator.normal(size=(30, 4)).astype("f4"))})
        for name in ("sound", "look")
    }
    pairs = pd.DataFrame({"user_id": generator.integers(0, 40, 200), "item_id": generator.integers(0, 30, 200)})
    quiet = dict.fromkeys(("content_dropout", "id_dropout", "modality_dropout"), 0.0)
    model = Fusion(dimension=8, content_rank=4, epochs=3, batch_size=64, **quiet).fit(pairs, vectors)
    known = TrainingSet.from_frames(pairs.assign(item_id=pairs["item_id"] // 2), vectors)
    known = known.write(tmp_path_factory.mktemp("started"))
    return loop.TrainingConfig(
        path=known.path,
        factory=FusionModule,
        parameters={name: model.parameters[name] for name in Fusion.module_parameters},
        epochs=2,
        batch_size=2 * len(known.weight),
        warm_start=model.learnt().save(known.path).name,
    )


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """A Transformer, on users who take the items 0 … 19 in order, each from a start of their own."""
    starts = np.random.default_rng(1).integers(0, 20, 150)
    rows = [(user, (start + step) % 20, 60.0 * step) for user, start in enumerate(starts) for step in range(8)]
    walks = TrainingSet.from_frames(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
    walks = walks.write(tmp_path_factory.mktemp("sequences"))
    walks.write_sequences()
    model = Transformer(dimension=8, dropout=0.0)
    return loop.TrainingConfig(
        path=walks.path,
        factory=TransformerModule,
        parameters={name: model.parameters[name] for name in Transformer.module_parameters},
        reader="sequences",
        epochs=6,
        batch_size=32,
        learning_rate=0.003,
    )


@pytest.fixture(scope="module")
def configs(snapshot, started, sequences):
    whole = loop.TrainingConfig(
        path=snapshot.path,
        factory=FactorModule,
        parameters={"dimension": 8, "dropout": 0.0},
        epochs=4,
        batch_size=2 * len(snapshot.weight),
        learning_rate=0.05,
    )
    short = replace(whole, batch_size=16, epochs=2)
    return {"whole": whole, "short": short, "started": started, "sequences": sequences}


@pytest.fixture(scope="module")
def alone(configs):
    return launchers.create("in-process").launch(everything_that_ranks_do, configs, 1)


@pytest.mark.parametrize(("name", "workers"), [("in-process", 1), ("horovod", 2), ("ddp", 2)])
def test_the_same_global_batches_give_the_same_loss_curve(spark, configs, alone, name, workers):
    launcher = launchers.create(name)
    told = []
    launcher.report = told.append
    together = launcher.launch(everything_that_ranks_do, configs, workers)
    assert together["size"] == workers
    assert together["first"] == 1.5
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert together["losses"][-1] < together["losses"][0]

    table, by_rows, bytes_per_step = together["table"]
    np.testing.assert_allclose(table, alone["table"][0], atol=1e-5)
    assert by_rows == (1 if workers > 1 else 0)
    # Eight rows of four numbers and their places, and the linear layer; not the table of 500 rows.
    assert bytes_per_step <= (workers - 1) * (BATCH * (4 * 4 + 8) + 2 * 5 * 4)

    # One global batch an epoch: the same sum of gradients, in unequal parts.
    figures = ("loss", "validation_ndcg@10")
    for figure in figures:
        curve = [entry[figure] for entry in together["whole"]]
        assert curve == pytest.approx([entry[figure] for entry in alone["whole"]], rel=1e-3)
    # The second rank has fewer rows than there are steps: it must not hang.
    assert [entry["epoch"] for entry in together["short"]] == [1, 2]
    assert together["short"][1]["loss"] < together["short"][0]["loss"]
    # All ranks begin with the same warm start, and the vectors of items are seen in its scale.
    losses = [[entry["loss"] for entry in part["started"].history] for part in (together, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    np.testing.assert_allclose(
        together["started"].state["items.weight"], alone["started"].state["items.weight"], atol=1e-3
    )
    # Where each epoch's windows begin is drawn by every rank for itself.
    losses = [[entry["loss"] for entry in part["sequences"]] for part in (together, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0][-1] < losses[0][0]
    assert [entry["epoch"] for entry in told] == [1, 2, 3, 4, 1, 2, 1, 2, 1, 2, 3, 4, 5, 6]
    assert all(entry["samples_per_second"] > 0 for entry in told)


def fails_on_the_second_rank(config, ranks):
    if ranks.rank == 1:
        raise DataError("The second rank has bad data.", "Repair it.")
    return ranks.mean(1.0)


def test_an_error_of_a_rank_is_the_error_of_the_launch(spark):
    with pytest.raises(DataError, match="second rank has bad data"):
        launchers.create("ddp").launch(fails_on_the_second_rank, None, 2)


def train_until_killed(config, ranks):
    """Training in which the second rank's process is killed at a step, the first time that it gets there.

    Where the file `driver` names a process group, that dies first: the driver and its JVM.
    """
    step = loop._Trainer._step

    def stepping(trainer, batch):
        marker, driver = Path(config.checkpoints, "killed"), Path(config.checkpoints, "driver")
        if ranks.rank == 1 and trainer._steps_done() == 40 and not marker.exists():
            marker.touch()
            if driver.exists():
                os.killpg(int(driver.read_text()), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, batch)

    loop._Trainer._step = stepping
    try:
        result = loop.train(config, ranks)
    finally:
        loop._Trainer._step = step
    return result


def to_be_broken_off(configs, folder):
    # 16 steps an epoch or so: a checkpoint lies in the middle of the third, and the kill after it.
    config = replace(configs["short"], epochs=4, batch_size=64, checkpoint_every_steps=7, checkpoints=str(folder))
    return replace(config, parameters={"dimension": 8, "dropout": 0.2})


def kill_and_compare(name, configs, folder):
    launcher = launchers.create(name)
    broken = to_be_broken_off(configs, folder)
    straight = launcher.launch(loop.train, replace(broken, checkpoints=None), 2)
    try:
        resumed = launcher.launch(train_until_killed, broken, 2)
    except RanksLostError as error:
        assert error.retryable
        resumed = launcher.launch(train_until_killed, broken, 2)
    assert (folder / "killed").exists()
    compare(resumed, straight)


def compare(resumed, straight):
    for figure in ("epoch", "loss", "validation_ndcg@10"):
        expected = [entry[figure] for entry in straight.history]
        assert [entry[figure] for entry in resumed.history] == pytest.approx(expected, rel=1e-3)
    for key, value in straight.state.items():
        np.testing.assert_allclose(resumed.state[key], value, atol=1e-4)


def test_a_killed_rank_goes_on_from_the_last_checkpoint_to_the_same_metric(spark, configs, tmp_path):
    # Spark starts the stage again by itself.
    kill_and_compare("ddp", configs, tmp_path)


@pytest.mark.slow
def test_a_killed_rank_of_horovod_goes_on_when_the_job_is_run_again(spark, configs, tmp_path):
    kill_and_compare("horovod", configs, tmp_path)


# A driver with a Spark of its own, which leads a process group.
DRIVER = """
import pickle, sys
from pathlib import Path
import test_launchers as here
from avrec_spark import session
from avrec_spark.config import SparkSettings
session.get(SparkSettings(master="local[2,4]"))
here.launchers.create("horovod").launch(here.train_until_killed, pickle.loads(Path(sys.argv[1]).read_bytes()), 2)
"""


@pytest.mark.slow
def test_a_killed_driver_goes_on_when_the_job_is_run_again(spark, configs, tmp_path):
    broken, given = to_be_broken_off(configs, tmp_path), tmp_path / "config"
    given.write_bytes(pickle.dumps(broken))
    # The ranks import this module, too.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(given)], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    (tmp_path / "driver").write_text(str(process.pid))
    assert process.wait(300) == -signal.SIGKILL, (tmp_path / "log").read_text()[-4000:]
    assert list(tmp_path.glob("*/step-*.pt"))
    launcher = launchers.create("horovod")
    resumed = launcher.launch(train_until_killed, broken, 2)
    compare(resumed, launcher.launch(loop.train, replace(broken, checkpoints=None), 2))


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
        launchers.create("horovod", 7).launch(fails_on_the_second_rank, None, 2)
    assert "Raise train.start_timeout_seconds" in str(error.value)
    assert error.value.retryable


def test_more_ranks_than_slots_are_refused_with_both_numbers(spark):
    with pytest.raises(NotEnoughSlotsError, match="needs 3 task slots at once, one a rank, and .* has 2 free") as error:
        slots.require_slots(spark.sparkContext, 3, patience_seconds=60)
    assert error.value.retryable
