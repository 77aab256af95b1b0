"""Choose between memory, the device's memory and workers by what the data set is."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.config.machine import memory_available
from accel_cli.errors import ConfigError
from accel_cli.loader.base import Loader
from accel_cli.loader.choose import choose
from accel_cli.loader.device import Device, can_move
from accel_cli.loader.memory import Memory
from accel_cli.loader.order import Order
from accel_cli.loader.read import Collate, has_batch
from accel_cli.loader.sharing import Sharing
from accel_cli.loader.stacked import measure
from accel_cli.loader.stream import is_stream
from accel_cli.loader.workers import Workers

LOADERS: dict[str, type[Loader]] = {"device": Device, "memory": Memory, "workers": Workers}
OTHERWISE = {"device": "memory", "memory": "workers"}
"""What serves where reading the set shows more than its first samples did."""
OWN_MEMORY = ("cuda", "xpu")
"""Devices with memory apart from the host's, that run one operation after another as they are asked to."""


def decide(dataset: Any, *, collate: Collate | None, seed: int, device_bytes: int | None = None) -> tuple[str, str]:
    """(option, why) for this data set on this machine; reads a few samples of it where it must.

    ``device_bytes`` are free on the accelerator, None without one.
    """
    if is_stream(dataset):
        return "workers", "a stream, read in the rank itself"
    size, reason = measure(dataset, collate=collate, seed=seed)
    is_array = collate is None and has_batch(dataset)
    if is_array and not can_move(dataset):
        device_bytes = None
    return choose(size, memory_available(), is_array, device_bytes=device_bytes, reason=reason)


def build(
    config: Any,
    *,
    dataset: Any,
    order: Order,
    collate: Collate | None,
    seed: int,
    device: torch.device,
    sharing: Sharing | None = None,
    **rest: Any,
) -> Loader:
    """The loader that fits; its ``why`` says the reason."""
    sharing = sharing or Sharing()
    free = sharing.device_memory if device.type in OWN_MEMORY else None
    option, why = sharing.agree(lambda: decide(dataset, collate=collate, seed=seed, device_bytes=free))
    rest.update(dataset=dataset, order=order, collate=collate, seed=seed, device=device, sharing=sharing)
    while True:
        try:
            loader = LOADERS[option](config, **rest)
        except ConfigError as error:
            if option not in OTHERWISE:
                raise
            option, why = OTHERWISE[option], error.problems[0].why
            continue
        loader.why = why
        return loader
