"""Data sets that hold their samples as tensors, so that a batch is one gather."""

from __future__ import annotations

import hashlib
from functools import lru_cache

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
        rows = indices if self.indices is None else self.indices.index_select(0, indices)
        # Rows as pieces of memory: for small images 20 times as fast as self.inputs[rows].
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
    """Neighbouring windows of one stream of tokens (uint8, uint16 or uint32 [tokens]); the target is one token later.

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
        window = _widened(self.windows[index])
        return window[:-1], window[1:]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Gather windows (LongTensor [n]) into inputs [n, length] and targets [n, length], uint8 or int32."""
        windows = _widened(torch.index_select(self.windows, 0, indices))
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes

    def to(self, device: torch.device) -> WindowDataset:
        """The same stream, in the memory of ``device``."""
        return WindowDataset(self.tokens.to(device), self.length)


class ShiftingWindows(WindowDataset):
    """The same, but every epoch begins at another of the first ``length`` tokens, drawn from (seed, epoch).

    So windows do not begin at the same tokens each time. There is one less where the stream would not hold it at the
    largest shift; nothing is left out for good.
    """

    by_epoch = True

    def __init__(self, tokens: Tensor, length: int, seed: int) -> None:
        self.tokens, self.length = tokens, length
        self.seed = seed
        self.windows = tokens.unfold(0, length + 1, 1)
        self.samples = len(tokens) // length - 1
        self._shift = lru_cache(maxsize=8)(self._draw)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The window in epoch 0."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        inputs, targets = self.batch(torch.tensor([index % len(self)]), torch.zeros(1, dtype=torch.int64))
        return inputs[0], targets[0]

    def batch(self, indices: Tensor, epochs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gather windows as each lies in its epoch, both LongTensor [n]; without ``epochs``, in epoch 0."""
        numbers = [0] * len(indices) if epochs is None else epochs.tolist()
        shifts = torch.tensor([self._shift(epoch) for epoch in numbers], dtype=torch.int64)
        return super().batch(indices * self.length + shifts.to(indices.device, non_blocking=True))

    def to(self, device: torch.device) -> ShiftingWindows:
        return ShiftingWindows(self.tokens.to(device), self.length, self.seed)

    def _draw(self, epoch: int) -> int:
        digest = hashlib.blake2b(f"windows {self.seed} {epoch}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.length


def _widened(tokens: Tensor) -> Tensor:
    """Bytes as they are, larger ones as int32, which every device and collective knows."""
    return tokens if tokens.dtype == torch.uint8 else tokens.int()
