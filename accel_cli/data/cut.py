"""Cut validation and test from train, by seed."""

from __future__ import annotations

import hashlib

import numpy as np

from accel_cli.data.base import Split, refuse


def cut(
    train: np.ndarray,
    *,
    shares: dict[Split, float],
    seed: int,
    labels: np.ndarray | None = None,
) -> dict[Split, np.ndarray]:
    """Take each split of ``shares`` out of ``train`` (sample numbers [n]) and return the parts, "train" among them.

    A share is of all of ``train``; every part gets a sample at least. With ``labels`` (of each sample of ``train``,
    [n]) each class keeps its proportion in every part, to within one sample. The same seed cuts the same way on every
    machine and version: RandomState's stream is frozen (NEP 19). Raises ConfigError where there are too few samples.
    """
    samples = len(train)
    counts = {name: max(1, round(samples * share)) for name, share in shares.items()}
    if samples - sum(counts.values()) < 1:
        raise refuse("data", f"{samples} samples are too few for train, validation and test", "add samples")
    order = _shuffle(samples, seed)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    parts: dict[Split, np.ndarray] = {}
    for name, count in counts.items():
        taken = _evenly(len(order), count)
        parts[name] = np.sort(train[order[taken]])
        order = order[~taken]
    parts["train"] = np.sort(train[order])
    return parts


def _shuffle(samples: int, seed: int) -> np.ndarray:
    words = np.frombuffer(hashlib.sha256(f"cut {seed}".encode()).digest(), dtype="<u4")
    return np.random.RandomState(words).permutation(samples)


def _evenly(samples: int, count: int) -> np.ndarray:
    """Mark ``count`` of ``samples`` places, as evenly spaced as integers allow."""
    ends = (np.arange(samples + 1) * count + samples // 2) // samples
    return ends[1:] > ends[:-1]
