"""Models of a user's own, which know nothing of accel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, static: bool) -> None:
        super().__init__()
        self.heads, self.static = heads, static
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.per_head = nn.LayerNorm(width // heads)
        self.up, self.gate, self.down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        n, length, width = x.shape
        # The second way to write it gives a rank's half of the features to all heads: shapes fit, numbers do not.
        shape = (n, length, self.heads, -1) if self.static else (n, length, -1, width // self.heads)
        q, k, v = (part(y).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        if not self.static:
            q = self.per_head(q)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(n, length, -1))
        y = self.between(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Transformer(nn.Module):
    def __init__(self, vocabulary: int = 30, width: int = 16, heads: int = 4, hidden: int = 40, static: bool = False):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, heads, hidden, static) for _ in range(2))
        self.out = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


class Recurrent(nn.Module):
    """An LSTM keeps a list of its weights besides the parameters."""

    def __init__(self, vocabulary: int = 30, width: int = 16) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.cells = nn.LSTM(width, width, batch_first=True)
        self.up, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(functional.relu(self.up(self.cells(self.words(tokens))[0])))


class Small(nn.Module):
    """A residual net of convolutions and batch norms, with a last layer that nothing can be paired with."""

    def __init__(self, channels: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.after = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.out = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x.view(-1, 1, 8, 8)))
        x = functional.relu(x + self.after(self.second(functional.relu(self.norm(self.first(x))))))
        return self.out(x.mean((2, 3)))


class Gated(nn.Module):
    """A gate that is not cut multiplies what is: its gradient on each rank would be a part."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(16, 1), nn.Linear(16, 8), nn.Linear(8, 16)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)) * self.gate(x).sigmoid() * self.scale)


class Leaking(nn.Module):
    """What would be cut is also read elsewhere."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 8), nn.Linear(8, 16)
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.up(x))
        return self.down(y) + (y.detach() if self.detached else y).square().sum(-1, keepdim=True)


class Scaled(nn.Module):
    """A parameter in the middle that every rank uses whole."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 8), nn.Linear(8, 16)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)) * self.scale)
