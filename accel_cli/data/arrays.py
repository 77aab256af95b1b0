"""Data sets that hold their samples as tensors, so that a batch is one gather."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Rows of two tensors, perhaps memory-mapped; with ``indices`` (LongTensor [n]) only the rows that it names."""

    def __init__(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> None:
        self.inputs = inputs
        self.targets = targets
        self.indices = indices

    def __len__(self) -> int:
        return len(self.inputs if self.indices is None else self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        row = index if self.indices is None else int(self.indices[index])
        return self.inputs[row], self.targets[row]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gather samples (LongTensor [n]) into inputs [n, ...] and targets [n, ...], both as stored."""
        rows = indices if self.indices is None else self.indices.index_select(0, indices)
        return self.inputs.index_select(0, rows), self.targets.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        """Of its own rows."""
        return len(self) * sum(t.nbytes // max(len(t), 1) for t in (self.inputs, self.targets))

    def to(self, device: torch.device) -> ArrayDataset:
        """Its own rows, in the memory of ``device``."""
        if self.indices is None:
            return ArrayDataset(self.inputs.to(device), self.targets.to(device))
        return ArrayDataset(self.inputs[self.indices].to(device), self.targets[self.indices].to(device))


class WindowDataset(Dataset[tuple[Tensor, Tensor]]):
    """Neighbouring windows of one stream of tokens (uint8 [tokens]); the target is the stream one token later.

    Window i is tokens i x length to (i + 1) x length, so that every token but the first is predicted exactly once; a
    tail shorter than a window is left out.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        self.tokens, self.length = tokens, length
        self.windows = tokens.unfold(0, length + 1, length)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        window = self.windows[index]
        return window[:-1], window[1:]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gather windows (LongTensor [n]) into inputs [n, length] and targets [n, length], both uint8."""
        windows = torch.index_select(self.windows, 0, indices)
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes

    def to(self, device: torch.device) -> WindowDataset:
        """The same stream, in the memory of ``device``."""
        return WindowDataset(self.tokens.to(device), self.length)
