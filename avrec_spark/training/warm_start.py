"""A warm start: what an earlier training has learnt, as the beginning of another one."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avrec_spark.dataset.index import IdIndex
from avrec_spark.errors import DataError, UsageError


class Startable(Protocol):
    """A module that can begin with what another one has learnt."""

    def start_from(self, start: WarmStart) -> None:
        """Take over what fits; raises `DataError` for a start of another configuration."""


@dataclass(frozen=True)
class WarmStart:
    """Parameters and buffers by their names in the module. `rows` names the owners of a table's rows (user ids, item
    ids, modalities): such a table is taken over row by row, so that it may grow, shrink and be in another order.
    `aligned` says that the last training brought modalities into one space.

    >>> module = nn.Embedding(3, 2)
    >>> start = WarmStart({"weight": np.float32([[1, 1], [2, 2]])}, {"weight": np.array(["a", "b"])})
    >>> start.carry_over(module, {"weight": np.array(["c", "b", "a"])})
    >>> module.weight[1:].tolist()
    [[2.0, 2.0], [1.0, 1.0]]
    """

    parameters: Mapping[str, NDArray[Any]]
    rows: Mapping[str, NDArray[Any]]
    aligned: bool = False

    @classmethod
    def of(cls, module: nn.Module, rows: Mapping[str, NDArray[Any]], aligned: bool = False) -> Self:
        """What the module holds now."""
        parameters = {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}
        return cls(parameters, rows, aligned)

    def only(self, *prefixes: str) -> WarmStart:
        """Those parameters alone whose names begin so."""
        kept = {name: value for name, value in self.parameters.items() if name.startswith(prefixes)}
        return WarmStart(kept, {name: owners for name, owners in self.rows.items() if name in kept}, self.aligned)

    @torch.no_grad()
    def carry_over(self, module: nn.Module, rows: Mapping[str, NDArray[Any]]) -> None:
        """Put into the module what is known of it; the rest, and rows of new owners, stay as the module drew them.

        Raises `DataError` where a parameter has another shape, or holds NaN.
        """
        for name, tensor in module.state_dict().items():
            if name not in self.parameters:
                continue
            known = torch.from_numpy(self.parameters[name])
            by_row = name in rows
            if known.shape[by_row:] != tensor.shape[by_row:]:
                raise DataError(
                    f"The warm start is of another configuration: its {name} has the shape {tuple(known.shape)}, and "
                    f"here it is {tuple(tensor.shape)}.",
                    "Give the model the parameters that it was first fitted with, or fit it without a warm start.",
                )
            if not torch.isfinite(known).all():
                raise DataError(f"The {name} of the warm start holds NaN or infinite values.", "Start from another.")
            if by_row:
                place = IdIndex(self.rows[name]).encode(rows[name])
                tensor[np.flatnonzero(place >= 0)] = known[place[place >= 0]]
            else:
                tensor.copy_(known)

    # -- save and load -----------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restored` takes: no Python objects."""
        owners = {name: ids.astype(str) if ids.dtype == object else ids for name, ids in self.rows.items()}
        parts = {"parameter": self.parameters, "rows": owners}
        named = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        return named | {"aligned": np.array(self.aligned)}

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

        return cls(part("parameter."), part("rows."), bool(arrays["aligned"]))

    def save(self, folder: str | Path) -> Path:
        """Write a file into the folder, which is named by what it holds; returns its path."""
        arrays, check = self.arrays(), 0
        for name in sorted(arrays):
            check = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), zlib.crc32(name.encode(), check))
        path = Path(folder, f"warm-start-{check:08x}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From the file that `save` wrote, or from a folder with one. Raises `UsageError` where there is none."""
        path = Path(path)
        found = sorted(path.glob("warm-start-*.npz")) if path.is_dir() else [path]
        if not found or not found[-1].is_file():
            raise UsageError(f"{path} holds no warm start.", "Name a folder that the job pretrain has written.")
        with np.load(found[-1]) as arrays:
            return cls.restored(dict(arrays))
