"""A causal Transformer over what a user did: the next item, from the latest ones and the time between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from avrec_spark.dataset.loader import SequenceBatch, sequences
from avrec_spark.dataset.training_set import TrainingSet
from avrec_spark.errors import SettingsError
from avrec_spark.models.histories import Histories
from avrec_spark.models.torch_model import TorchRecommender, embedding, touched
from avrec_spark.recommend.topk import Matrix, ScoreSource
from avrec_spark.training.loop import biased
from avrec_spark.training.losses import Candidates

# Times between events count by their power of two: bucket 0 is the same second, the last one 34 years and more.
_BUCKETS = 32
# Users encoded at once outside training.
_BLOCK_USERS = 256


class Block(nn.Module):
    """Pre-norm attention and feed-forward layer; each head adds to its logits what it has learnt of lag and time.

    The bias of key k for query q is lag[q − k] + elapsed[bucket(t_q − t_k)]: relative places mean the same in a long
    history as in a short one.
    """

    def __init__(self, dimension: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.before_attention, self.before_feed = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
        self.project = nn.Linear(dimension, 3 * dimension)
        self.merge = nn.Linear(dimension, dimension)
        self.lag = nn.Parameter(torch.zeros(length, heads))
        self.elapsed = nn.Parameter(torch.zeros(_BUCKETS, heads))
        self.feed = nn.Sequential(
            nn.Linear(dimension, 4 * dimension), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dimension, dimension)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, lags: Tensor, elapsed: Tensor, hidden: Tensor) -> Tensor:
        """States float32[n, L, d]; `lags` int64[L, L], `elapsed` and `hidden` [n, L, L] of queries and keys."""
        n, length, dimension = states.shape
        shape = n, length, 3, self.heads, dimension // self.heads
        query, key, value = self.project(self.before_attention(states)).view(shape).permute(2, 0, 3, 1, 4)
        bias = (self.lag[lags] + self.elapsed[elapsed]).masked_fill(hidden[..., None], -torch.inf).permute(0, 3, 1, 2)
        rate = self.rate if self.training else 0.0
        read = functional.scaled_dot_product_attention(query, key, value, bias.to(query.dtype), rate)
        states = states + self.dropout(self.merge(read.transpose(1, 2).reshape(states.shape)))
        fed: Tensor = states + self.dropout(self.feed(self.before_feed(states)))
        return fed


class SequenceEncoder(nn.Module):
    """The state of a user after each of the events, from the item, the time since the event before, and attention."""

    def __init__(self, n_items: int, *, dimension: int, blocks: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.item = embedding(n_items, dimension)
        self.gap = embedding(_BUCKETS, dimension)
        self.blocks = nn.ModuleList(Block(dimension, heads, length, dropout) for _ in range(blocks))
        self.last = nn.LayerNorm(dimension)
        self.dropout = nn.Dropout(dropout)

    def forward(self, items: Tensor, times: Tensor) -> Tensor:
        """float32[n, L, d] for items int64[n, L], −1 where there is none, and their times in seconds float64[n, L]."""
        absent = items < 0
        places = torch.arange(items.shape[1], device=items.device)
        lags = places[:, None] - places
        hidden = (lags < 0) | absent[:, None, :]
        # An absent query would see no key, and its softmax be NaN: it sees itself.
        hidden &= lags != 0
        gaps = _bucket(times.diff(dim=1, prepend=times[:, :1])).masked_fill(absent | _first(absent), 0)
        states = self.dropout(self.item(items.clamp(min=0)) + self.gap(gaps)) * ~absent[..., None]
        elapsed = _bucket((times[:, :, None] - times[:, None, :]).clamp(min=0))
        for block in self.blocks:
            states = block(states, lags.clamp(min=0), elapsed, hidden)
        normalised: Tensor = self.last(states)
        return normalised


def _bucket(seconds: Tensor) -> Tensor:
    """0 below a second, then 1 + ⌊log2⌋, at most the last bucket."""
    return (seconds.clamp(min=0.5).log2().floor() + 1).long().clamp(0, _BUCKETS - 1)


def _first(absent: Tensor) -> Tensor:
    """The places whose event before is absent."""
    return functional.pad(absent[:, :-1], (1, 0), value=True)


class TransformerModule(nn.Module):
    """score = state · q_i + b_i, where q_i is the vector by which item i enters the sequence.

    Items that nobody has touched have no vector and the smallest bias.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        *,
        dimension: int,
        blocks: int,
        heads: int,
        window: int,
        dropout: float,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        n_items = len(training_set.items)
        shape = {"dimension": dimension, "blocks": blocks, "heads": heads, "length": window}
        self.encoder = SequenceEncoder(n_items, dropout=dropout, **shape)
        self.window, self.label_smoothing = window, label_smoothing
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.register_buffer("warm", touched(training_set), persistent=False)

    def batch_loss(self, batch: SequenceBatch, candidates: Candidates) -> Tensor:
        """Cross-entropy of each event's item after the events before it, times its weight, summed.

        Events of one time come in a new random order each epoch: the order in which they lie says nothing.
        """
        device = candidates.device
        items, times, weights = (torch.from_numpy(part).to(device) for part in batch[1:])
        order = _reshuffled(items, times)
        shift = _shift(items.shape[1], self.window)
        items = _windows(items.gather(1, order), self.window, shift, -1)
        kept = (items >= 0).sum(dim=1) > 1
        items = items[kept]
        times, weights = (_windows(part.gather(1, order), self.window, shift, 0)[kept] for part in (times, weights))
        asked = (items[:, :-1] >= 0) & (items[:, 1:] >= 0)
        if not asked.any():
            return self.bias.sum() * 0
        states, targets = self.encoder(items[:, :-1], times[:, :-1])[asked], items[:, 1:][asked]
        chosen, log_draws = candidates.of(targets)
        # One product with a bias: a quarter of an epoch went into adding to the logits of all events and items.
        logits = functional.linear(states, self.encoder.item(chosen), self.bias[chosen] - log_draws)
        losses = functional.cross_entropy(
            logits.float(),
            torch.searchsorted(chosen, targets),
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return (losses * weights[:, 1:][asked]).sum()

    def score_sources(self, training_set: TrainingSet) -> list[ScoreSource]:
        """The state after each user's last event × item vectors; the bias is one more dimension."""
        left = last_states(self.encoder, Histories.of(training_set), self.window)
        warm = self.get_buffer("warm")
        vectors = self.encoder.item.weight * warm[:, None]
        bias = torch.where(warm, self.bias, self.bias[warm].min())
        return [ScoreSource(left, biased(vectors, bias))]


def _shift(length: int, window: int) -> int:
    """How many places after the last event the last window ends: at random, or 0 where one window holds them all."""
    return int(torch.randint(window, ())) if length > window else 0


def _windows(values: Tensor, window: int, shift: int, fill: int) -> Tensor:
    """[n · m, window] for [n, L]: rows cut from the right, `shift` places after their end; `fill` where there is none.

    >>> _windows(torch.tensor([[1, 2, 3, 4]]), 3, 1, -1).tolist()
    [[-1, 1, 2], [3, 4, -1]]
    """
    if values.shape[1] <= window:
        return values
    before = -(values.shape[1] + shift) % window
    return functional.pad(values, (before, shift), value=fill).view(-1, window)


def _reshuffled(items: Tensor, times: Tensor) -> Tensor:
    """int64[n, L]: the columns in order of time, absent ones first, those of one time at random."""
    draw = torch.rand(items.shape, device=items.device).argsort(dim=1)
    keys = times.masked_fill(items < 0, -torch.inf).gather(1, draw)
    return draw.gather(1, keys.argsort(dim=1, stable=True))


@torch.inference_mode()
def last_states(encoder: SequenceEncoder, histories: Histories, length: int) -> NDArray[np.float32]:
    """float32[n_users, d + 1]: each user's state after the last event, then a 1; zero without any event."""
    device = encoder.item.weight.device
    encoder.eval()
    batch = sequences(length, histories.user, histories.item, histories.weight, histories.timestamp)
    left = np.zeros((histories.n_users, encoder.item.embedding_dim + 1), np.float32)
    for start in range(0, len(batch.user_index), _BLOCK_USERS):
        block = slice(start, start + _BLOCK_USERS)
        items, times = (torch.from_numpy(part[block]).to(device) for part in (batch.items, batch.times))
        left[batch.user_index[block], :-1] = encoder(items, times)[:, -1].float().cpu().numpy()
        left[batch.user_index[block], -1] = 1
    return left


class Transformer(TorchRecommender):
    """Scores the next item by the state of a causal Transformer after the user's last events.

    Needs interactions with timestamps; events of one time count as unordered. A user is the last `window` events;
    training cuts the last `sequence_length` of each user into windows, elsewhere each epoch. Users without history get
    the popular list. A new user or a new event is encoded without a new fit, which leaves the items as they are
    (`fold_in`, `recommend_for_history`). Costs events × (window + items) × dimension an epoch; beyond
    `full_softmax_items` items the softmax is sampled.

    Source: Kang and McAuley 2018, "Self-attentive sequential recommendation" (SASRec), with a softmax over the items in
    place of one negative, and with biases for lag and elapsed time in the attention (as Zhai et al. 2024) in place of
    absolute positions.
    """

    name = "transformer"
    factory = TransformerModule
    reader = "sequences"
    module_parameters = ("dimension", "blocks", "heads", "window", "dropout", "label_smoothing")

    def __init__(
        self,
        *,
        dimension: int = 64,
        blocks: int = 2,
        heads: int = 2,
        window: int = 50,
        sequence_length: int = 200,
        dropout: float = 0.3,
        label_smoothing: float = 0.05,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.003,
        weight_decay: float = 0.1,
        full_softmax_items: int = 4096,
        patience: int = 5,
        seed: int = 42,
    ) -> None:
        if dimension % heads:
            raise SettingsError(
                f"The model transformer cannot share {dimension} dimensions among {heads} heads.",
                "Choose a dimension that is a multiple of heads.",
            )
        if window < 2:
            raise SettingsError(
                f"The window of the model transformer is {window}; one event says nothing of the next.",
                "Choose at least 2.",
            )
        self.dimension = dimension
        self.blocks = blocks
        self.heads = heads
        self.window = window
        self.sequence_length = sequence_length
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.full_softmax_items = full_softmax_items
        self.patience = patience
        self.seed = seed

    def _keep(self, module: nn.Module, training_set: TrainingSet) -> None:
        assert isinstance(module, TransformerModule)
        self._encoder = module.encoder

    def _left(self, histories: Histories) -> list[Matrix]:
        return [last_states(self._encoder, histories, self.window)]

    def _extra(self) -> dict[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in self._encoder.state_dict().items()}

    def _restore(self, extra: Mapping[str, NDArray[Any]]) -> None:
        shape = {"dimension": self.dimension, "blocks": self.blocks, "heads": self.heads}
        self._encoder = SequenceEncoder(len(self.items), dropout=self.dropout, length=self.window, **shape)
        self._encoder.load_state_dict({name: torch.from_numpy(value) for name, value in extra.items()})
        self._encoder.eval()
