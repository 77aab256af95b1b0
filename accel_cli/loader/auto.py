"""Choose between memory and workers by what the data set is."""

from __future__ import annotations

from typing import Any

from accel_cli.config.machine import memory_available
from accel_cli.errors import ConfigError
from accel_cli.loader.base import Loader
from accel_cli.loader.choose import choose
from accel_cli.loader.memory import Memory, measure
from accel_cli.loader.order import Order
from accel_cli.loader.read import Collate, has_batch
from accel_cli.loader.stream import is_stream
from accel_cli.loader.workers import Workers

LOADERS: dict[str, type[Loader]] = {"memory": Memory, "workers": Workers}


def decide(dataset: Any, *, collate: Collate | None, seed: int, copies: int = 1) -> tuple[str, str]:
    """(option, why) for this data set on this machine; reads a few samples of it where it must."""
    if is_stream(dataset):
        return "workers", "a stream, read in the rank itself"
    size, reason = measure(dataset, collate=collate, seed=seed)
    is_array = collate is None and has_batch(dataset)
    return choose(size, memory_available(), is_array, copies=copies, reason=reason)


def build(config: Any, *, dataset: Any, order: Order, collate: Collate | None, seed: int, **rest: Any) -> Loader:
    """The loader that fits; its ``why`` says the reason. Ranks may differ in it: the batches are the same bits."""
    rest.update(dataset=dataset, order=order, collate=collate, seed=seed)
    option, why = decide(dataset, collate=collate, seed=seed, copies=order.world_size)
    try:
        loader = LOADERS[option](config, **rest)
    except ConfigError as error:
        if option != "memory":
            raise
        loader, why = Workers(config, **rest), error.problems[0].why
    loader.why = why
    return loader
