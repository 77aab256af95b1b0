"""Data sets that hold their samples as tensors, so that a batch is one gather."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Rows of two tensors, perhaps memory-mapped; with ``indices`` (LongTensor [n]) only the rows that it names.

    ``content``: a name that no other content of the two tensors has, where one is known without reading them.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None, content: str = "") -> None:
        self.content = content
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
        rows = indices if self.indices is None else self.indices[indices]
        return self.inputs[rows], self.targets[rows]


class WindowDataset(Dataset[tuple[Tensor, Tensor]]):
    """Neighbouring windows of one stream of tokens (uint8 [tokens]); the target is the stream one token later.

    Window i is tokens i x length to (i + 1) x length, so that every token but the first is predicted exactly once; a
    tail shorter than a window is left out.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
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
