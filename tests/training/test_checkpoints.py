"""Runs that are broken off go on where they were; how a run is configured changes it as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.models.mf import FactorModule
from avrec_spark.training import loop
from avrec_spark.training.checkpoints import Checkpoints
from avrec_spark.training.ranks import OneRank

STEPS = 18


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only wait for each other over batches as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """18 steps an epoch, with dropout, so that a run that draws other numbers ends elsewhere."""
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 10)
    pairs = pd.DataFrame({"user_id": users, "item_id": users % 3 * 12 + generator.integers(0, 12, len(users))})
    late = generator.random(len(pairs)) < 0.1
    written = TrainingSet.from_frames(pairs[~late], validation=pairs[late]).write(tmp_path_factory.mktemp("snapshot"))
    return loop.TrainingConfig(
        path=written.path,
        factory=FactorModule,
        parameters={"dimension": 8, "dropout": 0.3},
        epochs=4,
        batch_size=32,
        checkpoint_every_steps=5,
    )


class Killed(BaseException):
    """As sudden as a signal: nothing of the platform catches it."""


def break_off(monkeypatch, config, at_step):
    step = loop._Trainer._step

    def stepping(trainer, batch):
        if trainer._steps_done() == at_step:
            raise Killed
        return step(trainer, batch)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Trainer, "_step", stepping)
        loop.train(config, OneRank())


def learnt(result):
    return [
        {k: v for k, v in entry.items() if k in ("epoch", "loss", loop.VALIDATION_METRIC)} for entry in result.history
    ]


@pytest.mark.parametrize("lazy", [False, True], ids=["dense", "lazy"])
def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(config, monkeypatch, tmp_path, lazy):
    config = replace(config, lazy_embeddings=lazy)
    straight = loop.train(config, OneRank())
    kept = replace(config, checkpoints=str(tmp_path))
    break_off(monkeypatch, kept, at_step=28)
    steps = []
    step = loop._Trainer._step
    monkeypatch.setattr(loop._Trainer, "_step", lambda trainer, batch: steps.append(1) or step(trainer, batch))
    resumed = loop.train(kept, OneRank())
    # It did go on from step 25, not from the beginning.
    assert len(steps) == straight.history[-1]["epoch"] * STEPS - 25
    assert learnt(resumed) == learnt(straight)
    for name, value in straight.state.items():
        np.testing.assert_array_equal(resumed.state[name], value)


def test_a_finished_run_is_not_repeated_and_another_configuration_starts_afresh(config, monkeypatch, tmp_path):
    kept = replace(config, epochs=1, checkpoints=str(tmp_path))
    first = loop.train(kept, OneRank())
    monkeypatch.setattr(loop._Trainer, "_step", None)
    assert learnt(loop.train(kept, OneRank())) == learnt(first)
    with pytest.raises(TypeError):
        loop.train(replace(kept, seed=1), OneRank())


def test_with_another_number_of_ranks_the_epoch_starts_again(config, monkeypatch, tmp_path):
    kept = replace(config, checkpoints=str(tmp_path))
    break_off(monkeypatch, kept, at_step=28)
    (folder,) = tmp_path.iterdir()
    checkpoints = Checkpoints(str(folder))
    name, state = checkpoints.latest()
    checkpoints.save(int(name[5:14]), {**state, "ranks": 3})
    seen = []
    step = loop._Trainer._step
    monkeypatch.setattr(
        loop._Trainer, "_step", lambda trainer, batch: seen.append(trainer._steps_done()) or step(trainer, batch)
    )
    loop.train(kept, OneRank())
    assert seen[0] == STEPS


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(1, {"value": torch.tensor([1.0])})
    checkpoints.save(2, {"value": torch.tensor([2.0])})
    last = tmp_path / "step-000000002.pt"
    last.write_bytes(last.read_bytes()[:100])
    # What a writer left that died in the middle is no checkpoint.
    (tmp_path / "step-000000003.pt.77.part").write_bytes(b"half")
    name, state = checkpoints.latest()
    assert (name, float(state["value"])) == ("step-000000001.pt", 1.0)
    checkpoints.clear()
    assert checkpoints.latest() is None


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path):
    torch.save({"step": Killed()}, tmp_path / "step-000000001.pt")
    assert Checkpoints(str(tmp_path)).latest() is None


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_what_single_precision_learns(config, precision):
    single = loop.train(config, OneRank()).history[-1]["loss"]
    half = loop.train(replace(config, precision=precision), OneRank())
    assert half.history[-1]["loss"] == pytest.approx(single, rel=0.02)
    assert all(value.dtype == np.float32 for value in half.state.values())


def test_bpr_learns_to_rank_ones_own_items_first(config):
    history = loop.train(replace(config, loss="bpr", negatives=2, epochs=6), OneRank()).history
    # Untrained, a positive wins against a negative half the time: log 2.
    assert history[0]["loss"] == pytest.approx(np.log(2), rel=0.1)
    assert history[-1]["loss"] < 0.5


def test_the_learning_rate_rises_in_the_warm_up_and_grows_with_the_ranks_where_asked(config):
    class Three(OneRank):
        size = 3

    rates = []
    for ranks, scaled in ((OneRank(), True), (Three(), False), (Three(), True)):
        wanted = replace(config, warmup_steps=4, scale_with_ranks=scaled, learning_rate=0.01)
        trainer = loop._Trainer(wanted, ranks, TrainingSet.read(config.path))
        trainer.gradients = loop.Gradients(trainer.module, OneRank())
        batches = trainer.loader.epoch(1)
        seen = []
        for _ in range(6):
            trainer._step(next(batches))
            trainer.course.step += 1
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])
        batch_size = -(-trainer.loader.samples // trainer.loader.steps)
        trainer.loader.close()
        rates.append((batch_size, seen))
    rising = [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01]
    (alone, one), (third, same), (whole, grown) = rates
    assert one == pytest.approx(rising)
    assert same == pytest.approx(rising)
    assert grown == pytest.approx([3 * rate for rate in rising])
    # 32 of all ranks together, or 32 of each rank.
    assert alone <= 32 and third <= 10 and 20 <= whole <= 32
