"""What ``loader=auto`` and ``loader.workers=auto`` mean, from plain numbers."""

from __future__ import annotations

MOST_WORKERS = 16
LARGEST_SHARE = 0.25
"""Of the memory that is free, for all copies of a set: activations, caches and evaluation need the rest."""


def choose(
    dataset_bytes: int | None, memory_available_bytes: int, has_batch: bool, *, copies: int = 1, reason: str = ""
) -> tuple[str, str]:
    """(option, why): ``memory`` or ``workers``.

    ``dataset_bytes`` is what the set takes as tensors, None where it cannot be held so, ``reason`` then says why;
    ``has_batch``: an array data set, which needs no copy; ``copies``: ranks of this machine, each with its own.
    """
    if has_batch:
        return "memory", "an array data set: a batch is one gather"
    if dataset_bytes is None:
        return "workers", reason or "the samples cannot be held as tensors"
    needed = dataset_bytes * copies
    sizes = f"{needed / 1e9:.2g} GB as tensors, {memory_available_bytes / 1e9:.2g} GB free"
    if needed <= LARGEST_SHARE * memory_available_bytes:
        return "memory", f"small: {sizes}"
    return "workers", f"large: {sizes}"


def worker_count(workers: int | str, *, cores: int, device: str) -> int:
    """Processes of each rank. ``cores`` are the rank's own; one stays with the rank, which on a CPU computes on it."""
    if isinstance(workers, int):
        return workers
    least = 0 if device == "cpu" else 1
    return min(max(cores - 1, least), MOST_WORKERS)
