"""One rank of benchmarks/ddp.py: accel's own worker, or a DDP loop as one writes it by hand. Started by torchrun."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from accel_cli import worker
from accel_cli.engine import phases


class Window:
    """Wall and CPU seconds of this rank between two steps."""

    def __init__(self, first: int, last: int) -> None:
        self.ends = {first, last}
        self.marks: list[tuple[float, float]] = []

    def after(self, step: int) -> None:
        if step + 1 in self.ends:
            used = resource.getrusage(resource.RUSAGE_SELF)
            self.marks.append((time.perf_counter(), used.ru_utime + used.ru_stime))

    def write(self, path: Path, **more: Any) -> None:
        (wall, cpu), (wall_after, cpu_after) = self.marks
        path.write_text(json.dumps({"wall": wall_after - wall, "cpu": cpu_after - cpu, **more}))


def accel(folder: Path, window: Window, out: Path) -> None:
    """The worker as it is; its loop gets one more hook after each step."""
    train: Any = phases.train

    def watched(training: Any, *rest: Any) -> str:
        training.after_step = (*training.after_step, window.after)
        status: str = train(training, *rest)
        return status

    phases.train = watched  # type: ignore[assignment]
    code = worker.work(worker.Request(folder=str(folder), started=time.time()), None)
    if code:
        sys.exit(code)
    window.write(out)


def by_hand(folder: Path, window: Window, out: Path) -> None:
    """Nothing but what training takes: gather, forward, backward, step, and the loss told every ten steps."""
    given = torch.load(folder.parent / "hand.pt", weights_only=False)
    torch.set_num_threads(given["threads"])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = DistributedDataParallel(given["model"], gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), given["learning_rate"], momentum=given["momentum"], fused=True)
    inputs, targets, order = given["inputs"], given["targets"], given["order"][:, rank]
    for step, indices in enumerate(order):
        output = model(inputs.index_select(0, indices))
        loss = cross_entropy(output.flatten(0, -2), targets.index_select(0, indices).flatten())
        loss.backward()
        if given["clip"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), given["clip"])
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9 and rank == 0:
            print(step + 1, loss.item())
        window.after(step)
    window.write(out)
    if rank == 0:
        torch.save(model.module.state_dict(), folder / "weights.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    kind, given_folder, first_step, last_step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    place = given_folder / f"window-{os.environ['RANK']}.json"
    {"accel": accel, "hand": by_hand}[kind](given_folder, Window(first_step, last_step), place)
    os._exit(0)
