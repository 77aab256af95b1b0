"""What benchmarks/launch.py starts beside accel: the smallest training as each peer has one write it, one step long.

    python launch_arm.py raw PLACE | torchrun ... launch_arm.py ddp PLACE | python launch_arm.py lightning PLACE RANKS

The first rank writes down when its first optimizer step has ended. Imports stand where a user's script has them: what
is not needed is not imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

KIND, PLACE = sys.argv[1], Path(sys.argv[2])
SAMPLES, BATCH = 1024, 64


def ended(version: str, parameters: int, ranks: int) -> None:
    """The mark: the time, and the CPU seconds of the whole tree of processes until now."""
    if int(os.environ.get("RANK", "0")) == 0 and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        now = time.time()
        sys.path.insert(0, str(Path(__file__).parent))
        from arms import tree_seconds

        told = {"ended": now, "cpu": tree_seconds(), "version": version, "parameters": parameters}
        told["ranks"] = ranks
        PLACE.write_text(json.dumps(told))


def parts() -> tuple[Any, Any, Any]:
    """Samples and the model 784-128-10, from a seed."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    inputs, targets = torch.randn(SAMPLES, 784), torch.randint(0, 10, (SAMPLES,))
    return inputs, targets, nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def by_hand() -> None:
    """One process, or a rank of torchrun's."""
    import torch
    from torch.nn.functional import cross_entropy

    inputs, targets, net = parts()
    model, rank, ranks = net, 0, 1
    if KIND == "ddp":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.distributed.init_process_group("gloo")
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        model = torch.nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    share = torch.randperm(SAMPLES)[:BATCH][rank::ranks]
    cross_entropy(model(inputs[share]), targets[share]).backward()
    optimizer.step()
    ended(torch.__version__, sum(p.numel() for p in net.parameters()), ranks)
    if KIND == "ddp":
        torch.distributed.destroy_process_group()


def accelerate() -> None:
    import accelerate
    import torch
    from torch.nn.functional import cross_entropy

    inputs, targets, net = parts()
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(net, torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True))
    share = torch.randperm(SAMPLES)[:BATCH][accelerator.process_index :: accelerator.num_processes]
    accelerator.backward(cross_entropy(model(inputs[share]), targets[share]))
    optimizer.step()
    ended(accelerate.__version__, sum(p.numel() for p in net.parameters()), accelerator.num_processes)
    accelerator.end_training()


def lightning() -> None:
    import lightning as pl
    import torch
    from torch.nn.functional import cross_entropy

    ranks = int(sys.argv[3])
    inputs, targets, net = parts()

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, index: int) -> Any:
            return cross_entropy(self.net(batch[0]), batch[1])

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.trainer.is_global_zero and batch_idx == 0:
                ended(pl.__version__, sum(p.numel() for p in net.parameters()), self.trainer.world_size)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.net.parameters(), lr=1e-3, fused=True)

    data = torch.utils.data.TensorDataset(inputs, targets)
    loader = torch.utils.data.DataLoader(data, BATCH // ranks, shuffle=True)
    several: dict[str, Any] = {"strategy": "ddp"} if ranks > 1 else {}
    trainer = pl.Trainer(accelerator="cpu", devices=ranks, max_steps=1, barebones=True, **several)
    trainer.fit(Module(), train_dataloaders=loader)


if __name__ == "__main__":
    {"raw": by_hand, "ddp": by_hand, "accelerate": accelerate, "lightning": lightning}[KIND]()
