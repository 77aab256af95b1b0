"""Hashes of what an output follows from: weights, samples as they are stored, and the code that computes."""

from __future__ import annotations

import hashlib
import inspect
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.loader.finish import map_tensors
from accel_cli.loader.read import Collate, Reader

ROWS_AT_ONCE = 1024
THREADS = 4
TORCH = Path(torch.__file__).parent


def of_tensors(values: Iterable[tuple[str, Tensor]]) -> str:
    """Of names, types, shapes and every bit; several at a time, in memory that a few of them take."""
    whole, waiting = hashlib.blake2b(digest_size=16), deque[Future[bytes]]()
    with ThreadPoolExecutor(THREADS) as threads:
        for name, value in values:
            waiting.append(threads.submit(_digest, name, value))
            if len(waiting) > 2 * THREADS:
                whole.update(waiting.popleft().result())
        for one in waiting:
            whole.update(one.result())
    return whole.hexdigest()


def of_weights(module: nn.Module, leave_out: Iterable[str] = ()) -> str:
    """Of all parameters and buffers, less those that are named."""
    spared = set(leave_out)
    held = (*module.named_parameters(), *module.named_buffers())
    return of_tensors((name, value.detach()) for name, value in held if name not in spared)


def of_samples(dataset: Any, collate: Collate | None) -> str:
    """Of all samples of a split, inputs and targets as they are stored; reads through it once.

    Of what lies in the data cache the entry's name tells as much, and which rows there are.
    """
    if content := getattr(dataset, "content", ""):
        return of_tensors([(content, dataset.indices)])
    return of_tensors(_pieces(dataset, collate))


def of_code(objects: Iterable[Any]) -> list[str]:
    """Of the source files of the objects' classes, less torch's own; a class of no file counts by its name."""
    files: set[Path] = set()
    names: set[str] = set()
    for kind in {type(value) for value in objects}:
        try:
            files.add(Path(inspect.getsourcefile(kind) or ""))
        except (TypeError, OSError):
            names.add(kind.__qualname__)
    own = (path for path in files if TORCH not in path.parents and path.is_file())
    return sorted({*names, *(hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in own)})


def _pieces(dataset: Any, collate: Collate | None) -> Iterator[tuple[str, Tensor]]:
    reader, samples = Reader(dataset, collate=collate, seed=0), len(dataset)
    for start in range(0, samples, ROWS_AT_ONCE):
        indices = torch.arange(start, min(start + ROWS_AT_ONCE, samples))
        found: list[Tensor] = []
        batch = reader(torch.zeros_like(indices), indices)
        rest = map_tensors(lambda tensor, found=found: found.append(tensor), batch)  # type: ignore[misc]
        yield from ((f"{start} {place} {rest}", tensor) for place, tensor in enumerate(found))


def _digest(name: str, value: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{name} {value.dtype} {tuple(value.shape)}".encode(), digest_size=16)
    digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
