"""What a module that does not change gives for every sample: computed once, kept in the cache folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from accel_cli.config.run import Run
from accel_cli.data.base import Report, Split
from accel_cli.data.cache import cache_folder, cached
from accel_cli.engine import fingerprints
from accel_cli.engine.output_table import Filling, Forward, Table
from accel_cli.engine.teacher import Teacher
from accel_cli.engine.teacher_source import find_teacher
from accel_cli.errors import ConfigError, Problem, ResourceError
from accel_cli.loader.finish import Finish
from accel_cli.loader.read import Reader, has_batch
from accel_cli.loader.stream import is_stream


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
        device: torch.device,
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
        self.device = device
        self.report = report

    def teacher(self, config: Any, key: str) -> Teacher:
        """The model that a pass's ``config`` names as its teacher, for this run's batches; ``key`` is where it stands.

        Raises as ``find_teacher`` does.
        """
        return Teacher(
            find_teacher(config, key, self.data, self.task.config.option),
            description=self.description,
            task=self.task,
            precision=self.precision,
            device=self.device,
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
        seed = self.run.train.seed if split == "train" else 0  # as evaluation reads
        source = {
            "what": what,
            "split": split if is_drawn else "",
            "weights": fingerprints.of_weights(module, leave_out),
            "architecture": [str(module), fingerprints.of_code([self.task, *module.modules()])],
            "samples": fingerprints.of_samples(dataset, self.data.collate),
            "inputs": [self.description.input, self.description.mean, self.description.std],
            "seed": seed if is_drawn else 0,
            "augment": self._augmentation() if augment is not None else None,
            "views": views,
            "precision": self.run.precision.model_dump(),
            "device": self.device.type,
            "torch": torch.__version__,
        }
        fill = Filling(
            what=what,
            module=module,
            forward=forward,
            reader=Reader(dataset, collate=self.data.collate, seed=seed),
            finish=Finish(self.description, self.device, augment),
            plain=Finish(self.description, self.device),
            samples=len(dataset),
            views=views,
            batch=self.run.evaluate.batch,
            precision=self.precision,
            report=self.report,
            with_targets=with_targets,
            where=where,
            otherwise=otherwise,
        )
        folder = cache_folder(getattr(self.run.data, "cache", None))
        try:
            entry = cached(folder, name="outputs", source=source, content=[], bytes_needed=0, build=fill)
        except ResourceError as error:
            raise ResourceError(f"{what}: {error.message}", f"{self._elsewhere()}, or {otherwise}") from error
        return Table.of(entry)

    def _augmentation(self) -> Any:
        options = {name: option.model_dump() for name, option in self.run.augment.items()}
        return [list(options.items()), fingerprints.of_code([self.augment, *self.augment.transforms])]

    def _elsewhere(self) -> str:
        has_key = hasattr(self.run.data, "cache")
        place = "data.cache=/a/folder/on/a/larger/disk" if has_key else "another disk: XDG_CACHE_HOME=/a/folder"
        return f"free some, or try {place}"
