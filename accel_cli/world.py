"""World: who this process is among the ranks, and the few things that all of them agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from accel_cli.config import network


@dataclass(frozen=True)
class World:
    """A world of one needs no process group: every method returns at once."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    """None: all ranks of the run."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add a tensor over all ranks, in place; a collective."""
        if self.world_size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every rank's small object, on every rank, in rank order; a collective."""
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def gather_to_first(self, value: Any) -> list[Any]:
        """Every rank's object on the first, in rank order; nothing elsewhere; a collective."""
        if self.world_size == 1:
            return [value]
        found: list[Any] | None = [None] * self.world_size if self.is_first else None
        dist.gather_object(value, found, group=self.group, group_dst=0)
        return found or []

    def share(self, values: torch.Tensor) -> torch.Tensor:
        """The first rank's values on every rank, in place; a collective."""
        if self.world_size > 1:
            dist.broadcast(values, dist.get_global_rank(self.group, 0) if self.group else 0, group=self.group)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.group)

    def part(self, group: dist.ProcessGroup) -> World:
        """The world of this rank's ``group``: the same device, and ranks counted within it."""
        return replace(self, rank=dist.get_rank(group), world_size=dist.get_world_size(group), group=group)

    @property
    def store(self) -> dist.Store | None:
        """The key-value store that the ranks met at; None in a world of one."""
        return dist.distributed_c10d._get_default_store() if self.world_size > 1 else None


def ranks_from_environment() -> tuple[int, int, int, int]:
    """(rank, world size, local rank, local world size) as torchelastic set them.

    Variables that some other launcher left behind are ignored: without torchelastic this is a world of one.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 0, 1
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in names)
    return rank, world_size, local_rank, local_world_size


def join(device: torch.device, backend: str, wait: float) -> World:
    """Meet the other ranks.

    ``wait`` is the time-out of one collective in seconds. On one machine gloo is bound to loopback, on several to the
    interface that leads to where they met. Objects and CPU tensors travel by gloo, whatever moves the device's.
    """
    rank, world_size, local_rank, local_world_size = ranks_from_environment()
    if world_size > 1 and not dist.is_initialized():
        met = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if world_size == local_world_size:
            interface = "lo0" if os.uname().sysname == "Darwin" else "lo"
        else:
            interface = network.interface_of(network.own_address(network.resolve(met[0]))) or ""
        if interface:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        store: dist.Store | None = None
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # The agents' store lives through restarts: what ranks of an earlier round left there is not for these.
            store = dist.TCPStore(*met, is_master=False, timeout=timedelta(seconds=wait))
            store = dist.PrefixStore(f"ranks/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        # Groups made later, such as a mesh's, would wait for as long as this module says: half an hour.
        dist.distributed_c10d.default_pg_timeout = timedelta(seconds=wait)
        dist.distributed_c10d.default_pg_nccl_timeout = timedelta(seconds=wait)
        numbers = (-1, -1) if store is None else (world_size, rank)
        if backend != "gloo":
            backend = f"cpu:gloo,{device.type}:{backend}"
        dist.init_process_group(backend, None, timedelta(seconds=wait), *numbers, store=store)
    return World(rank, world_size, local_rank, local_world_size, device)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
