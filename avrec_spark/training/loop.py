"""The training loop: averaged over ranks, validated every epoch, the best epoch kept, resumed from checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from avrec_spark.dataset.loader import AnyBatch, Batch, Loader, Reader
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import DataError
from avrec_spark.evaluation import metrics
from avrec_spark.recommend.topk import ScoreSource, top_k
from avrec_spark.training.checkpoints import Checkpoints, fingerprint
from avrec_spark.training.gradients import Gradients, LazyAdamW
from avrec_spark.training.losses import Candidates, Loss, TwoSides, bpr_loss, softmax_loss
from avrec_spark.training.ranks import Ranks
from avrec_spark.training.warm_start import Startable, WarmStart

logger = logging.getLogger(__name__)

VALIDATION_METRIC = "validation_ndcg@10"
_K = 10

# Builds the untrained module from a training set and parameters; a class at module level, to be pickled by name.
ModuleFactory = Callable[..., nn.Module]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a rank needs; `path` is the snapshot folder that all ranks can read."""

    path: str
    factory: ModuleFactory
    parameters: dict[str, Any] = field(default_factory=dict)
    epochs: int = 20
    # Of all ranks together. With scale_with_ranks it is that of one rank, and the learning rate grows with the batch.
    batch_size: int = 1024
    learning_rate: float = 0.01
    scale_with_ranks: bool = False
    # The learning rate rises linearly to its value over so many steps.
    warmup_steps: int = 0
    weight_decay: float = 0.0
    # Move and decay only the rows of embeddings that a step touches: other mathematics, for tables of millions of rows.
    lazy_embeddings: bool = False
    # Up to this many items the softmax runs over all of them, beyond over the batch's own and as many random ones.
    full_softmax_items: int = 4096
    # softmax, or bpr with so many sampled negatives; scores are divided by the temperature first. A module that has a
    # method batch_loss(batch, candidates) uses that instead.
    loss: Loss = "softmax"
    negatives: int = 1
    temperature: float = 1.0
    # What a batch is: interactions (Batch), or users with their last `sequence_length` items (SequenceBatch).
    reader: Reader = "interactions"
    sequence_length: int = 50
    # The part of the snapshot that the batches of interactions come from.
    part: str = "train"
    # A file in the snapshot's folder that `WarmStart.save` has written: where the module begins.
    warm_start: str | None = None
    # Stop after so many epochs without a better validation.
    patience: int = 5
    # Of the forward pass; parameters and optimizers stay in float32. float16 scales its gradients.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 42
    # A folder for checkpoints every so many steps; a run with the same data and configuration goes on from the last.
    checkpoints: str | None = None
    checkpoint_every_steps: int = 1000


# How a run goes on, and not what it learns.
_NOT_LEARNT = ("path", "checkpoints", "checkpoint_every_steps")


@dataclass
class TrainingResult:
    """Parameters of the best epoch by validation, and figures of every epoch."""

    state: dict[str, NDArray[Any]]
    history: list[dict[str, float]]


@dataclass
class _Course:
    """Where training stands: the epoch, its steps that are done, the sum of their losses, and what came before."""

    epoch: int = 1
    step: int = 0
    total: float = 0.0
    done: bool = False
    best: float = -np.inf
    worse: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def train(config: TrainingConfig, ranks: Ranks) -> TrainingResult:
    """Train one module on this rank's share of the snapshot, in step with the other ranks.

    `batch_size` is that of all ranks together, so that more ranks change the speed and not the mathematics: the same
    global batches give the same losses and parameters, but for rounding and what is drawn at random (dropout). Random
    numbers depend on the seed, the rank and the step, so that a run that goes on from a checkpoint draws what it would
    have drawn. With another number of ranks than before, it goes on from the beginning of the checkpoint's epoch.

    Raises `NotEnoughRowGroupsError`, and `DataError` where no interaction has a weight.
    """
    training_set = TrainingSet.read(config.path)
    if not training_set.weight.any():
        raise DataError("No interaction of the training part weighs more than 0.", "Check events.weights.")
    trainer = _Trainer(config, ranks, training_set)
    try:
        return trainer.run()
    finally:
        trainer.loader.close()


def untrained(config: TrainingConfig, training_set: TrainingSet) -> nn.Module:
    """The module before its first step, random or from the warm start. Raises what `Startable.start_from` raises."""
    module = config.factory(training_set, **config.parameters)
    if config.warm_start is not None:
        cast(Startable, module).start_from(WarmStart.load(Path(config.path, config.warm_start)))
    return module


class _Trainer:
    """One rank's module, optimizers and data, and the epochs over them."""

    def __init__(self, config: TrainingConfig, ranks: Ranks, training_set: TrainingSet) -> None:
        self.config, self.ranks, self.training_set = config, ranks, training_set
        scale = ranks.size if config.scale_with_ranks else 1
        torch.manual_seed(config.seed)
        self.module = untrained(config, training_set).to(ranks.device)
        ranks.share(self.module)
        self.gradients = Gradients(self.module, ranks, config.lazy_embeddings)
        self.learning_rate = config.learning_rate * scale
        self.optimizers = _optimizers(self.gradients, self.learning_rate, config)
        self.scaler = GradScaler(ranks.device.type, enabled=config.precision == "float16")
        self.loader = Loader(
            config.path,
            max(1, config.batch_size * scale // ranks.size),
            ranks.rank,
            ranks.size,
            config.seed,
            part=config.part,
            reader=config.reader,
            sequence_length=config.sequence_length,
        )
        # One divisor for all batches of all ranks: then the mean over ranks and steps is the mean over interactions,
        # also where batches differ by a row or in weight.
        self.divisor = self.loader.rows_per_step * float(training_set.weight.mean())
        self.candidates = Candidates(training_set, config.full_softmax_items, ranks.device)
        self.course, self.best_state = _Course(), _state(self.module)
        self.checkpoints = self._checkpoints()

    def run(self) -> TrainingResult:
        self._resume()
        course, config = self.course, self.config
        while not course.done:
            figures = self._epoch()
            value = None
            if self.ranks.rank == 0 and self.training_set.validation is not None:
                value = validate(self.module, self.training_set)
            value = self.ranks.from_first(value)
            course.history.append(
                {"epoch": course.epoch, **figures} | ({VALIDATION_METRIC: value} if value is not None else {})
            )
            if value is None or value > course.best:
                course.best, course.worse = (-np.inf if value is None else value), 0
                self.best_state = _state(self.module)
            else:
                course.worse += 1
            course.done = course.epoch >= config.epochs or course.worse >= config.patience
            self._tell(course.history[-1])
            course.epoch, course.step, course.total = course.epoch + 1, 0, 0.0
        if self.checkpoints is not None:
            self._save()
        return TrainingResult({name: value.numpy() for name, value in self.best_state.items()}, course.history)

    def _epoch(self) -> dict[str, float]:
        self.module.train()
        course, loader = self.course, self.loader
        started, waited, first = time.perf_counter(), loader.waited_seconds, course.step
        for batch in loader.epoch(course.epoch, first):
            course.total += self._step(batch)
            course.step += 1
            if self.checkpoints is not None and self._steps_done() % self.config.checkpoint_every_steps == 0:
                self._save()
        seconds = time.perf_counter() - started
        return {
            "loss": self.ranks.mean(course.total / loader.steps),
            "seconds": seconds,
            "samples_per_second": loader.samples_per_step * (loader.steps - first) * self.ranks.size / seconds,
            "data_wait_share": (loader.waited_seconds - waited) / seconds,
            "exchanged_bytes_per_step": self.gradients.bytes_per_step,
        }

    def _step(self, batch: AnyBatch) -> float:
        """One step of the optimizers; this rank's part of the loss."""
        done, config = self._steps_done(), self.config
        torch.manual_seed(_seed(config.seed, self.ranks.rank, done))
        for parameter in self.gradients.parameters:
            parameter.grad = None
        loss = 0.0
        # A rank whose shard is short has empty batches in the end; it still takes part in the average.
        if len(batch.user_index):
            device, kind = self.ranks.device.type, getattr(torch, config.precision)
            with torch.autocast(device, kind, enabled=config.precision != "float32"):
                summed = _loss(self.module, batch, self.candidates, config) / self.divisor
            self.scaler.scale(summed).backward()  # type: ignore[no-untyped-call]
            loss = float(summed.detach())
        self.gradients.average()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * min(1.0, (done + 1) / max(1, config.warmup_steps))
            self.scaler.step(optimizer)
        self.scaler.update()
        return loss

    def _steps_done(self) -> int:
        return (self.course.epoch - 1) * self.loader.steps + self.course.step

    def _tell(self, figures: dict[str, float]) -> None:
        logger.info("epoch %d of at most %d: %s", figures["epoch"], self.config.epochs, figures)
        if self.ranks.rank == 0 and self.ranks.report is not None:
            self.ranks.report({**figures, "epochs": self.config.epochs, "ended": self.course.done})

    def _checkpoints(self) -> Checkpoints | None:
        if self.config.checkpoints is None:
            return None
        learnt = {name: value for name, value in vars(self.config).items() if name not in _NOT_LEARNT}
        learnt["factory"] = f"{self.config.factory.__module__}.{self.config.factory.__qualname__}"
        return Checkpoints(f"{self.config.checkpoints}/{fingerprint(self.training_set, learnt)}")

    def _save(self) -> None:
        # The others' losses are lost with them; with the mean, the epoch's figure stays right.
        self.course.total = self.ranks.mean(self.course.total)
        if self.ranks.rank == 0 and self.checkpoints is not None:
            state = {
                "course": {**vars(self.course), "history": [dict(one) for one in self.course.history]},
                "ranks": self.ranks.size,
                "module": self.module.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "scaler": self.scaler.state_dict(),
                "best": self.best_state,
            }
            self.checkpoints.save(self._steps_done(), state)

    def _resume(self) -> None:
        """Go on from the latest checkpoint, which rank 0 chooses."""
        if self.checkpoints is None:
            return
        found = self.checkpoints.latest() if self.ranks.rank == 0 else None
        name = self.ranks.from_first(found[0] if found is not None else None)
        if name is None:
            return
        state = found[1] if found is not None else self.checkpoints.load(name)
        self.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.course, self.best_state = _Course(**state["course"]), state["best"]
        if state["ranks"] != self.ranks.size:
            # Other shards: what has been read of this epoch cannot be told.
            self.course.step, self.course.total = 0, 0.0
        logger.info("going on from %s: epoch %d, step %d", name, self.course.epoch, self.course.step)


def epoch_line(figures: Mapping[str, float]) -> str:
    """What a person wants to know after an epoch; the time left is that of all epochs, which may not be needed.

    >>> epoch_line({"epoch": 3, "epochs": 20, "loss": 2.5, "seconds": 4.0, "samples_per_second": 51234.5})
    'epoch 3 of 20, loss 2.5000, 51,234 samples/s, at most 68 s left'
    """
    left = 0.0 if figures.get("ended") else (figures["epochs"] - figures["epoch"]) * figures["seconds"]
    quality = f", NDCG@10 {figures[VALIDATION_METRIC]:.4f}" if VALIDATION_METRIC in figures else ""
    return (
        f"epoch {figures['epoch']:.0f} of {figures['epochs']:.0f}, loss {figures['loss']:.4f}{quality}, "
        f"{figures['samples_per_second']:,.0f} samples/s" + (f", at most {left:,.0f} s left" if left else ", done")
    )


def _optimizers(gradients: Gradients, learning_rate: float, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    options: dict[str, Any] = {"lr": learning_rate, "weight_decay": config.weight_decay}
    if not (config.lazy_embeddings and gradients.by_rows):
        return [torch.optim.AdamW(gradients.parameters, **options)]
    lazy = LazyAdamW(gradients.by_rows, **options)
    return [torch.optim.AdamW(gradients.dense, **options), lazy] if gradients.dense else [lazy]


def _seed(*numbers: int) -> int:
    """A seed that has nothing to do with those of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _loss(module: nn.Module, batch: AnyBatch, candidates: Candidates, config: TrainingConfig) -> Tensor:
    """The module's own `batch_loss` where it has one, else the configured loss of its two sides."""
    own = getattr(module, "batch_loss", None)
    if own is not None:
        return cast(Tensor, own(batch, candidates))
    if not isinstance(batch, Batch):
        raise TypeError("a module that reads sequences brings its own batch_loss")
    sides = cast(TwoSides, module)
    if config.loss == "bpr":
        return bpr_loss(sides, batch, candidates, config.negatives, config.temperature)
    return softmax_loss(sides, batch, candidates, config.temperature)


@torch.inference_mode()
def factors(module: nn.Module, n_users: int, n_items: int) -> ScoreSource:
    """The trained module as user and item factors; the bias is one more dimension."""
    module.eval()
    device = next(module.parameters()).device
    sides = cast(TwoSides, module)
    users = sides.user_vectors(torch.arange(n_users, device=device)).cpu()
    left = torch.cat([users, torch.ones(n_users, 1)], dim=1).numpy()
    right = biased(*sides.item_vectors(torch.arange(n_items, device=device)))
    return ScoreSource(left.astype(np.float32), right)


def biased(vectors: Tensor, bias: Tensor) -> NDArray[np.float32]:
    """The right side of a score source, float32[d + 1, n_items], of item vectors [n_items, d] and their bias."""
    return np.ascontiguousarray(torch.cat([vectors, bias[:, None]], dim=1).T.cpu().numpy(), np.float32)


def score_sources(module: nn.Module, training_set: TrainingSet) -> list[ScoreSource]:
    """The scores of a trained module: its own `score_sources(training_set)` where it has one, else its factors."""
    module.eval()
    own = getattr(module, "score_sources", None)
    if own is not None:
        with torch.inference_mode():
            return list(own(training_set))
    return [factors(module, len(training_set.users), len(training_set.items))]


def validate(module: nn.Module, training_set: TrainingSet) -> float:
    """NDCG@10 on the validation pairs, all items ranked, train items removed."""
    assert training_set.validation is not None
    truth = training_set.validation.to_numpy(np.int64)
    users, relevant = np.unique(truth[:, 0], return_counts=True)
    lists, _ = top_k(score_sources(module, training_set), users, _K, training_set.matrix()[users].astype(bool))
    # A pair as one number, so that membership is one vectorised look-up.
    n_items = len(training_set.items)
    hits = np.isin(users[:, None] * n_items + lists, truth[:, 0] * n_items + truth[:, 1]) & (lists >= 0)
    return float(metrics.per_user(hits, relevant, _K)["ndcg"].mean())


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
