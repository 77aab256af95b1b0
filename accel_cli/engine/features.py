"""Train the head of a model alone, on what the rest of it gives for each sample; the model stays whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.config.run import Run
from accel_cli.config.transfer_rules import HOLDS_WHOLE
from accel_cli.data.base import SPLITS, Data, Split
from accel_cli.description import DataDescription
from accel_cli.engine.output_table import Table
from accel_cli.engine.outputs import Outputs
from accel_cli.errors import CheckpointError
from accel_cli.loader.stream import is_stream
from accel_cli.loader.varies import varies


def through_the_model(head: Any, run: Run, data: Any, augment: Any) -> str:
    """Why the head's inputs are computed in every step; empty where they are computed once, as ``on_features`` does."""
    train = data.split("train")
    if head.always:
        return ""
    if augment is not None:
        return "augmentation draws anew in every epoch"
    if run.strategy.option not in HOLDS_WHOLE:
        return f"under strategy={run.strategy.option} no rank holds the whole model"
    if run.compression:
        return f"compression={','.join(run.compression)} reads or changes all of it"
    if is_stream(train):
        return "the data is a stream, which has no samples by number"
    return varies(train, collate=data.collate, seed=run.train.seed)


def on_features(head: Any, model: nn.Module, outputs: Outputs) -> Features:
    """The data of the head's inputs. From here on the model's forward takes those, and calls its head only.

    Names, weights and everything else of the model stay: it is saved, loaded and exported whole. ``head`` is what
    ``Transfer.head`` found. Raises as ``Outputs.keep`` does.
    """
    inside = [name for name, _ in model.named_parameters() if name.startswith(f"{head.name}.")]

    def features(batch: Any) -> Tensor:
        return head.features(model, outputs.task, batch)  # type: ignore[no-any-return]

    tables = {
        split: outputs.keep(
            f"features of {split}",
            model,
            features,
            split,
            views=head.views,
            where=head.where,
            otherwise="transfer=finetune",
            leave_out=inside,
            with_targets=True,
        )
        for split in SPLITS
    }
    model.forward = lambda features: head.module(features)  # type: ignore[method-assign]
    _keep_the_rest(model, head.name)
    return Features(tables, outputs.description)


def _keep_the_rest(model: nn.Module, head: str) -> None:
    """Refuse a checkpoint whose frozen weights are not those that the features were computed with."""
    frozen = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{head}.")}

    def compare(module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        other = [n for n, v in frozen.items() if n in state and not torch.equal(state[n].to(v), v)]
        if other:
            why = f"its frozen weights are not those that transfer.weights names now: {', '.join(other[:3])}"
            raise CheckpointError(f"the checkpoint does not fit: {why}", "put back the weights that the run began with")

    model.register_load_state_dict_pre_hook(compare)


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


class Features(Data):
    """Data whose inputs are the features of other data's; the rest of their description stays."""

    def __init__(self, tables: dict[Split, Table], description: DataDescription) -> None:
        self.views = len(tables["train"].outputs)
        self._splits = {name: Rows(table) for name, table in tables.items()}
        shape = tuple(tables["train"].outputs.shape[2:])
        self._description = dataclasses.replace(description, input="other", input_shape=shape, mean=None, std=None)

    def describe(self) -> DataDescription:
        return self._description

    def split(self, name: Split) -> Rows:
        return self._splits[name]
