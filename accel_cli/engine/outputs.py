"""What a module that does not change gives for every sample: computed once, kept in the cache folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accel_cli.config.run import Run
from accel_cli.data.base import Report, Split
from accel_cli.data.cache import cache_folder, cached, check_space, load, load_facts, save
from accel_cli.engine import fingerprints
from accel_cli.engine.teacher import Teacher
from accel_cli.engine.trained import trained_model
from accel_cli.errors import CheckpointError, ConfigError, Problem, ResourceError
from accel_cli.loader.base import own_keys
from accel_cli.loader.finish import Finish
from accel_cli.loader.read import Reader, has_batch
from accel_cli.loader.stream import is_stream
from accel_cli.task.batch import split as split_batch
from accel_cli.world import World

STORED = {torch.bfloat16: torch.uint16}
"""Types that numpy lacks, and those that hold their bits."""
Forward = Callable[[Any], Tensor]
"""From a batch on the device, as training reads it, to [n, ...]."""


@dataclass(frozen=True)
class Table:
    """``outputs`` [views, samples, ...] and the samples' targets as stored [samples, ...], memory-mapped.

    ``targets`` is empty where nobody asked for them.
    """

    outputs: Tensor
    targets: Tensor

    def rows(self, epochs: Tensor, indices: Tensor) -> Tensor:
        """[n, ...] of the samples that are named, int64 [n], each in the view whose turn its epoch is."""
        views, samples = self.outputs.shape[:2]
        places = indices if views == 1 else epochs % views * samples + indices
        return self.outputs.flatten(0, 1).index_select(0, places)


class Outputs:
    """Of a run's data, as its batches are: standardised, for training augmented, in its precision, on its device."""

    def __init__(
        self,
        *,
        run: Run,
        data: Any,
        augment: Any,
        task: Any,
        example: Any,
        precision: Any,
        world: World,
        report: Report,
    ) -> None:
        """``example``: a batch as evaluation reads it."""
        self.run = run
        self.data = data
        self.description = data.describe()
        self.augment = augment
        self.task = task
        self.example = example
        self.precision = precision
        self.device = world.device
        self.report = report

    def teacher(self, run: str, which: str, where: str) -> Teacher:
        """The model of a run folder, for this run's batches. Raises ConfigError for what holds no run or checkpoint."""
        folder = Path(run).expanduser()
        if not (folder / "run.yaml").is_file():
            why = "a folder without run.yaml" if folder.is_dir() else "no such folder"
            raise ConfigError(Problem(where, why, "name the folder of a run, such as runs/<time>-<name>"))
        try:
            found = trained_model(folder, which)
        except CheckpointError as error:
            raise ConfigError(Problem(where, error.message, error.fix or "name another run")) from error
        return Teacher(
            found, description=self.description, task=self.task, precision=self.precision, device=self.device
        )

    def keep(
        self,
        what: str,
        module: nn.Module,
        forward: Forward,
        split: Split,
        *,
        views: int = 1,
        where: str,
        otherwise: str,
        leave_out: Sequence[str] = (),
        with_targets: bool = False,
    ) -> Table:
        """The table of a split, read where one of the same weights, data and settings is kept, else computed.

        ``views``: of training samples as many augmentations, that of epoch v in view v; one where nothing is drawn.
        ``where`` is the key that asks for it, ``otherwise`` what to type to do without.
        ``leave_out``: parameters of the module that its output does not follow from. ``with_targets``: keep those too.
        Every rank of a machine calls this: one computes, the others wait. Raises ConfigError for data that cannot be
        kept so, ResourceError for the disk.
        """
        dataset = self.data.split(split)
        if is_stream(dataset):
            why = "keeps an output for each sample; this data is a stream, which has no samples by number"
            raise ConfigError(Problem(where, why, f"try {otherwise}"))
        augment = self.augment if split == "train" else None
        is_drawn = augment is not None or not has_batch(dataset)
        views = views if split == "train" and is_drawn else 1
        source = {
            "what": what,
            "split": split if is_drawn else "",
            "weights": fingerprints.of_weights(module, leave_out),
            "architecture": [str(module), fingerprints.of_code([self.task, *module.modules()])],
            "samples": fingerprints.of_samples(dataset, self.data.collate),
            "inputs": [self.description.input, self.description.mean, self.description.std],
            "seed": self.run.train.seed if is_drawn else 0,
            "augment": self._augmentation() if augment is not None else None,
            "views": views,
            "precision": self.run.precision.model_dump(),
            "device": self.device.type,
            "torch": torch.__version__,
        }
        build = partial(self._build, what, module, forward, dataset, augment, views, where, otherwise, with_targets)
        folder = cache_folder(getattr(self.run.data, "cache", None))
        try:
            entry = cached(folder, name="outputs", source=source, content=[], bytes_needed=0, build=build)
        except ResourceError as error:
            raise ResourceError(f"{what}: {error.message}", f"{self._elsewhere()}, or {otherwise}") from error
        outputs = torch.from_numpy(load(entry, "outputs"))
        dtype = getattr(torch, load_facts(entry)["dtype"])
        return Table(outputs.view(dtype) if dtype in STORED else outputs, torch.from_numpy(load(entry, "targets")))

    def _augmentation(self) -> Any:
        options = {name: option.model_dump() for name, option in self.run.augment.items()}
        return [list(options.items()), fingerprints.of_code([self.augment, *self.augment.transforms])]

    def _elsewhere(self) -> str:
        has_key = hasattr(self.run.data, "cache")
        place = "data.cache=/a/folder/on/a/larger/disk" if has_key else "another disk: XDG_CACHE_HOME=/a/folder"
        return f"free some, or try {place}"

    def _build(
        self,
        what: str,
        module: nn.Module,
        forward: Forward,
        dataset: Any,
        augment: Any,
        views: int,
        where: str,
        otherwise: str,
        with_targets: bool,
        entry: Path,
    ) -> None:
        """Fill an empty folder."""
        reader = Reader(dataset, collate=self.data.collate, seed=self.run.train.seed)
        finish = Finish(self.description, self.device, augment)
        keys = augment.keys if augment is not None else own_keys
        samples, size = len(dataset), self.run.evaluate.batch
        stored: Any = None
        targets: list[Tensor] = []
        dtype = torch.float32
        was_training = module.training
        module.eval()
        for view in range(views):
            for start in range(0, samples, size):
                indices = torch.arange(start, min(start + size, samples))
                epochs = torch.full_like(indices, view)
                raw = reader(*keys(epochs, indices))
                batch = finish(raw, epochs, indices)
                with torch.no_grad(), self.precision.autocast():
                    output = forward(batch).detach().cpu()
                if with_targets and view == 0:
                    targets.append(self._targets(raw, batch, epochs, indices, where, otherwise))
                if stored is None:
                    dtype = output.dtype
                    stored = _room(entry / "outputs.npy", output, views, samples)
                if len(output) != len(indices) or output.shape[1:] != stored.shape[2:] or output.dtype != dtype:
                    why = f"gave {list(output.shape)} for {len(indices)} samples, and {list(stored.shape[2:])} for one"
                    raise ConfigError(Problem(where, why, f"pad the samples to one size, or try {otherwise}"))
                stored[view, start : start + len(indices)] = output.view(STORED.get(dtype, dtype)).numpy()
                self.report(what, view * samples + start + len(indices), views * samples)
        module.train(was_training)
        stored.flush()
        kept = torch.cat(targets) if targets else torch.empty(0)
        save(entry, facts={"dtype": str(dtype).removeprefix("torch.")}, targets=kept.numpy())

    def _targets(self, raw: Any, batch: Any, epochs: Tensor, indices: Tensor, where: str, otherwise: str) -> Tensor:
        """As stored, of a batch as it was read; what mixes samples has read more of them, its own first."""
        inputs, targets = split_batch(raw)
        finished = split_batch(batch)[1]
        if isinstance(targets, Tensor) and isinstance(finished, Tensor):
            own = targets[: len(indices)]
            plain = own
            if isinstance(inputs, Tensor):
                plain = Finish(self.description, self.device)((inputs[:1], own), epochs, indices)[1]
            if plain.shape == finished.shape and torch.equal(plain.to(finished), finished):
                return own
        why = "targets are kept as stored, and augment changes them"
        raise ConfigError(Problem(where, why, f"try augment=none, or {otherwise}"))


def _room(path: Path, output: Tensor, views: int, samples: int) -> Any:
    """An array on the disk for all of them, every byte of it reserved: writing to a full disk would kill the rank."""
    shape = (views, samples, *output.shape[1:])
    kind = output.new_empty(0, device="cpu").view(STORED.get(output.dtype, output.dtype)).numpy().dtype
    needed = int(np.prod(shape)) * kind.itemsize
    check_space(path.parent, needed)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


class Rows:
    """An array data set of a table: (output, target) of each sample, by epoch."""

    by_epoch = True

    def __init__(self, table: Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.table.outputs[0, index], self.table.targets[index]

    def batch(self, indices: Tensor, epochs: Tensor) -> tuple[Tensor, Tensor]:
        """Of the samples and epochs that are named (LongTensor [n]): outputs [n, ...] and targets [n, ...]."""
        return self.table.rows(epochs, indices), self.table.targets[indices]


class OfOutputs:
    """Data whose inputs are what a module gave for those of other data; the rest of their description stays."""

    collate = None

    def __init__(self, tables: dict[Split, Table], description: Any) -> None:
        self.views = len(tables["train"].outputs)
        self._splits = {name: Rows(table) for name, table in tables.items()}
        shape = tuple(tables["train"].outputs.shape[2:])
        self._description = dataclasses.replace(description, input="other", input_shape=shape, mean=None, std=None)

    def describe(self) -> Any:
        return self._description

    def split(self, name: Split) -> Rows:
        return self._splits[name]
