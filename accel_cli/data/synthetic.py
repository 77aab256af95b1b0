"""Random data of any size that a model can learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from accel_cli.data.arrays import ArrayDataset, WindowDataset
from accel_cli.data.base import SPLITS, Data, Loaded, refuse, sample_counts
from accel_cli.data.cut import cut
from accel_cli.data.statistics import mean_and_std
from accel_cli.description import DataDescription

COARSE = 4
"""Cells along each side of a class's pattern: features large enough for any receptive field."""
ROWS_AT_ONCE = 512


class Synthetic(Data):
    """Images and vectors are a class's own pattern, or a random mixture of two, under noise; tokens a Markov chain."""

    def load(self) -> Loaded:
        random = np.random.default_rng([self.seed, *b"synthetic"])
        parts = cut(
            np.arange(self.config.samples),
            shares={"validation": self.config.validation_share, "test": self.config.test_share},
            seed=self.seed,
        )
        if self.config.shape == "tokens":
            facts, datasets = self._tokens(random, parts)
        else:
            facts, datasets = self._arrays(random, parts)
        return Loaded(DataDescription(**facts, **sample_counts(parts)), datasets)

    def _arrays(self, random: np.random.Generator, parts: Any) -> tuple[dict[str, Any], Any]:
        config = self.config
        image = config.shape == "image"
        shape = (config.channels, config.height, config.width) if image else (config.features,)
        inputs, targets = patterns(random, config.samples, shape, classes=config.classes, noise=config.noise)
        mean, std = mean_and_std(inputs, parts["train"])
        facts = {"input": config.shape, "input_shape": shape, "mean": mean, "std": std}
        if config.classes is None:
            facts |= {"target": "number", "outputs": targets.shape[1]}
        else:
            facts |= {"target": "class", "classes": config.classes}
        tensors = torch.from_numpy(inputs), torch.from_numpy(targets)
        return facts, {name: ArrayDataset(*tensors, torch.from_numpy(parts[name])) for name in SPLITS}

    def _tokens(self, random: np.random.Generator, parts: Any) -> tuple[dict[str, Any], Any]:
        vocabulary = self.config.classes
        if vocabulary is None or vocabulary > 256:
            given = "null" if vocabulary is None else vocabulary
            raise refuse(f"data.classes={given}", "tokens are bytes: 2 to 256 of them", "try data.classes=256")
        length = self.config.length
        stream = markov(random, self.config.samples * length + 1, vocabulary, noise=self.config.noise)
        facts = {"input": "tokens", "target": "next_token", "input_shape": (length,), "vocabulary": vocabulary}
        windows = WindowDataset(torch.from_numpy(stream), length).windows
        datasets = {}
        for name in SPLITS:
            own = windows[torch.from_numpy(parts[name])]
            datasets[name] = ArrayDataset(own[:, :-1], own[:, 1:])
        return facts | {"bytes_per_token": 1.0}, datasets


def patterns(
    random: np.random.Generator, samples: int, shape: tuple[int, ...], *, classes: int | None, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs uint8 [samples, c, h, w] or float32 [samples, features]; targets int64 [samples] or float32 [samples, 1].

    A class is a random pattern; a number is the place between two patterns, from -1 to 1. ``noise`` is the share of the
    input that is random; at 1 nothing is left to learn.
    """
    known: Any = np.stack([_pattern(random, shape) for _ in range(classes or 2)])
    inputs = np.empty((samples, *shape), dtype=np.uint8 if len(shape) == 3 else np.float32)
    if classes is None:
        targets: Any = random.uniform(-1, 1, (samples, 1)).astype(np.float32)
    else:
        targets = random.integers(classes, size=samples)
    for start in range(0, samples, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        if classes is None:
            place = targets[rows].reshape(-1, *[1] * len(shape))
            clean = (1 + place) / 2 * known[0] + (1 - place) / 2 * known[1]
        else:
            clean = known[targets[rows]]
        piece = (1 - noise) * clean + noise * random.standard_normal(clean.shape, dtype=np.float32)
        inputs[rows] = np.clip(piece * 40 + 128, 0, 255) if len(shape) == 3 else piece
    return inputs, targets


def _pattern(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return random.standard_normal(shape, dtype=np.float32)
    channels, height, width = shape
    cells = random.standard_normal((channels, COARSE, COARSE), dtype=np.float32)
    rows, columns = np.arange(height) * COARSE // height, np.arange(width) * COARSE // width
    return cells[:, rows][:, :, columns]


def markov(random: np.random.Generator, tokens: int, vocabulary: int, *, noise: float) -> np.ndarray:
    """A stream uint8 [tokens] in which each token is a fixed permutation of the one before.

    ``noise`` is the share of tokens that are random instead.
    """
    follows = random.permutation(vocabulary)
    surprises = random.uniform(size=tokens) < noise
    surprises[0] = True
    stream = np.where(surprises, random.integers(vocabulary, size=tokens), 0)
    # Runs between surprises are walked together: power k of the permutation, for k up to the longest run.
    starts = np.maximum.accumulate(np.where(surprises, np.arange(tokens), 0))
    steps = np.arange(tokens) - starts
    return _walk(follows, stream[starts], steps).astype(np.uint8)


def _walk(follows: np.ndarray, tokens: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Apply the permutation ``steps`` times to each token, by squaring."""
    tokens = tokens.copy()
    for bit in range(int(steps.max()).bit_length()):
        odd = (steps >> bit) & 1 == 1
        tokens[odd] = follows[tokens[odd]]
        follows = follows[follows]
    return tokens
