"""What ``loader=auto`` and ``loader.workers=auto`` mean, from plain numbers."""

from __future__ import annotations

MOST_WORKERS = 16
LARGEST_SHARE = 0.25
"""Of the memory that is free: activations, caches and evaluation need the rest."""
PREFETCH = 2
"""What ``prefetch=auto`` is where nothing was measured."""


def choose(
    dataset_bytes: int | None,
    memory_available_bytes: int,
    has_batch: bool,
    *,
    device_bytes: int | None = None,
    reason: str = "",
) -> tuple[str, str]:
    """(option, why): ``memory``, ``device`` or ``workers``.

    ``dataset_bytes`` is what the set takes as tensors, None where it cannot be held so, ``reason`` then says why;
    ``has_batch``: an array data set, which needs no copy; ``device_bytes``: free on the accelerator, None where there
    is none or it cannot hold such a set.
    """
    if dataset_bytes is None:
        return "workers", reason or "the samples cannot be held as tensors"
    sizes = f"{gigabytes(dataset_bytes)} as tensors, {gigabytes(memory_available_bytes)} free"
    fits = has_batch or dataset_bytes <= LARGEST_SHARE * memory_available_bytes
    if fits and device_bytes is not None and dataset_bytes <= LARGEST_SHARE * device_bytes:
        return "device", f"{gigabytes(dataset_bytes)}, the device has {gigabytes(device_bytes)} free"
    if has_batch:
        return "memory", "an array data set: a batch is one gather"
    return ("memory", f"small: {sizes}") if fits else ("workers", f"large: {sizes}")


def worker_count(workers: int | str, *, cores: int, device: str) -> int:
    """Processes of each rank. ``cores`` are the rank's own; one stays with the rank, which on a CPU computes on it."""
    if isinstance(workers, int):
        return workers
    least = 0 if device == "cpu" else 1
    return min(max(cores - 1, least), MOST_WORKERS)


def thread_count(threads: int | str, *, cores: int) -> int:
    """Threads of each rank: one at least, as many as processes would be else."""
    return threads if isinstance(threads, int) else min(max(cores - 1, 1), MOST_WORKERS)


def prefetched(prefetch: int | str) -> int:
    return prefetch if isinstance(prefetch, int) else PREFETCH


def gigabytes(size: float) -> str:
    number = size / 1e9
    return f"{number:.3g} GB" if number < 1000 else f"{number:.0f} GB"
