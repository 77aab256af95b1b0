"""One arm of benchmarks/engine.py and benchmarks/checkpoint.py: a training loop that is not accel's, in its process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import arms
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = tuple[Tensor, Tensor]


class Work:
    """What every arm begins with: the same model object, samples, order and settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        given = torch.load(folder.parent / "given.pt", weights_only=False)
        self.device = torch.device(given.get("device", "cpu"))
        self.model: nn.Module = given["model"].to(self.device)
        self.inputs, self.targets, self.order = (given[name].to(self.device) for name in ("inputs", "targets", "order"))
        self.every: int = given["every"]
        self.clip: float | None = given["clip"]
        self.save_every: int = given.get("save_every", 0)
        self.kind, self.groups, self.settings = given["optimizer"], given["groups"], given["settings"]
        self.window = arms.window(folder / "window.json", given["first"], given["last"])
        self._set_up(given.get("precision", "fp32"))
        torch.set_num_threads(given["threads"])
        torch.set_num_interop_threads(1)
        torch.manual_seed(0)
        self.model.train()

    def _set_up(self, precision: str) -> None:
        """A GPU's switches as accel sets them; bf16 by autocast."""
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        if self.device.type == "cuda":
            self.window.wait = torch.cuda.synchronize
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = precision != "fp32"
            torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")

    def optimizer(self) -> torch.optim.Optimizer:
        """torch's fused kernel over the groups that accel makes: no decay of biases and norms."""
        named = dict(self.model.named_parameters())
        groups = [{**group, "params": [named[name] for name in group["params"]]} for group in self.groups]
        kind: Any = getattr(torch.optim, self.kind)
        made: torch.optim.Optimizer = kind(groups, fused=True, **self.settings)
        return made

    def batches(self) -> Iterator[Batch]:
        for indices in self.order:
            yield self.inputs.index_select(0, indices), self.targets.index_select(0, indices)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def __len__(self) -> int:
        return len(self.order)

    def told(self, step: int, loss: Tensor) -> None:
        """The loss read and printed on the beat that accel has."""
        if (step + 1) % self.every == 0:
            print(step + 1, loss.item())

    def save(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """As one writes it by hand: model, optimizer and step in one file, replaced when it is whole."""
        if self.save_every and (step + 1) % self.save_every == 0:
            began = time.perf_counter()
            partial = self.folder / "checkpoint.partial"
            torch.save({"model": self.model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
            partial.rename(self.folder / "checkpoint.pt")
            if self.window.first <= step + 1 < self.window.last:
                self.window.more.setdefault("blocked", []).append(time.perf_counter() - began)


def hand(work: Work, *, guarded: bool = True) -> str:
    """Nothing but what training takes; ``guarded``: a batch of non-finite gradients changes nothing, as in accel."""
    model, optimizer = work.model, work.optimizer()
    parameters = [p for p in model.parameters() if p.requires_grad]
    for step, (inputs, targets) in enumerate(work.batches()):
        with work.autocast:
            loss = cross_entropy(model(inputs), targets)
        loss.backward()
        if work.clip:
            norm = nn.utils.clip_grad_norm_(parameters, work.clip)
        elif guarded:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if guarded:
            optimizer.found_inf = (norm * 0.0).nan_to_num_(nan=1.0)  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
        work.told(step, loss.detach())
        work.window.after(step)
        work.save(step, optimizer)
    return torch.__version__


def unguarded(work: Work) -> str:
    return hand(work, guarded=False)


def dataloader(work: Work) -> str:
    """The loop by hand without the guard, from torch's own loader over the same tensors, in the same order."""
    from torch.utils.data import DataLoader, TensorDataset

    samples = TensorDataset(work.inputs, work.targets)
    loader = DataLoader(samples, batch_sampler=work.order.tolist())
    work.batches = lambda: iter(loader)  # type: ignore[method-assign]
    return unguarded(work)


def accelerate(work: Work) -> str:
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="no")
    model, optimizer = accelerator.prepare(work.model, work.optimizer())
    for step, (inputs, targets) in enumerate(work.batches()):
        loss = cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        if work.clip:
            accelerator.clip_grad_norm_(model.parameters(), work.clip)
        optimizer.step()
        optimizer.zero_grad()
        work.told(step, loss.detach())
        work.window.after(step)
    return str(accelerate.__version__)


def lightning(work: Work, *, bare: bool = True) -> str:
    """``bare``: what Lightning offers to time the Trainer itself; else its CSV logger and progress bar."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = work.model

        def training_step(self, batch: Batch, index: int) -> Tensor:
            loss = cross_entropy(self.net(batch[0]), batch[1])
            if bare:
                work.told(index, loss.detach())
            else:
                self.log("loss", loss, prog_bar=True)
            return loss

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            work.window.after(batch_idx)

        def configure_optimizers(self) -> Any:
            return work.optimizer()

    settings: dict[str, Any] = {"barebones": True}
    if not bare:
        from lightning.pytorch.loggers import CSVLogger

        settings = {
            "logger": CSVLogger(str(work.folder)), "log_every_n_steps": work.every, "enable_checkpointing": False,
            "enable_model_summary": False,
        }  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, gradient_clip_val=work.clip, use_distributed_sampler=False,
        **settings,
    )  # fmt: skip
    trainer.fit(Module(), train_dataloaders=work)
    return str(pl.__version__)


def lightning_full(work: Work) -> str:
    return lightning(work, bare=False)


ARMS: dict[str, Callable[[Work], str]] = {
    "hand": hand, "unguarded": unguarded, "dataloader": dataloader, "accelerate": accelerate, "lightning": lightning,
    "lightning_full": lightning_full,
}  # fmt: skip

if __name__ == "__main__":
    given_work = Work(Path(sys.argv[2]))
    version = ARMS[sys.argv[1]](given_work)
    given_work.window.write(version=version)
    torch.save(given_work.model.cpu().state_dict(), given_work.folder / "weights.pt")
