"""The user's own Dataset, by factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from accel_cli.config.factory import load_factory
from accel_cli.data.base import SPLITS, Data, Loaded, Split, refuse, sample_counts
from accel_cli.data.cut import cut
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem

NOT_SUPPORTED = (ValueError, KeyError, NotImplementedError)
"""What a factory may raise for a split that it does not know; returning None does as well."""


class Custom(Data):
    """``factory(split=..., **args)`` returns a data set of (input, target) or of dicts, map-style or iterable.

    A split that the factory does not know is cut from train by seed; so are both if it takes no ``split`` at all. It is
    first called when the data is first looked at, in the rank: user code is not imported anywhere else.
    """

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self._shares: dict[Split, float] = {}
        if config.collate is not None:
            self.collate = load_factory(config.collate, "data.collate")

    def load(self) -> Loaded:
        factory = load_factory(self.config.factory, "data.factory")
        made = make_splits(factory, self.config)
        shares: dict[Split, float] = {
            "validation": self.config.validation_share,
            "test": self.config.test_share,
        }
        self._shares = {name: share for name, share in shares.items() if name not in made}
        if self._shares:
            made |= _cut(made["train"], self._shares, self.seed, self.config.factory)
        facts = look_at(made["train"], self.config, f"data.factory={self.config.factory}")
        return Loaded(DataDescription(**facts, **sample_counts(made)), made)

    def content(self, name: Split) -> dict[str, Any] | None:
        if self.config.fingerprint is None:
            return None
        self._once()
        own = {"factory": self.config.factory, "args": self.config.args, "split": name}
        cut = {"seed": self.seed, "shares": self._shares} if self._shares else {}
        return {**own, **cut, "fingerprint": self.config.fingerprint}


def make_splits(factory: Callable[..., Any], config: Any) -> dict[Split, Any]:
    """Call the factory for each split that it knows. Raises ConfigError for arguments that it does not take."""
    where = f"data.factory={config.factory}"
    takes_split = _check_arguments(factory, config, where)
    if not takes_split:
        return {"train": _checked(factory(**config.args), where, "train")}
    made: dict[Split, Any] = {"train": _checked(factory(split="train", **config.args), where, "train")}
    for split in SPLITS[1:]:
        try:
            dataset = factory(split=split, **config.args)
        except NOT_SUPPORTED:
            continue
        if dataset is not None:
            made[split] = _checked(dataset, where, split)
    return made


def look_at(dataset: Any, config: Any, where: str) -> dict[str, Any]:
    """Kinds and shapes, from the first sample; "other" for what is not a pair of tensors or numbers."""
    sample = next(iter(dataset), None) if isinstance(dataset, IterableDataset) else dataset[0]
    if sample is None:
        raise refuse(where, "yields no sample for split=train", "return a data set with samples")
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        return {"input": "other", "target": "other", "input_shape": (), "classes": config.classes}
    try:
        first, target = (torch.as_tensor(part) for part in sample)
    except (TypeError, ValueError, RuntimeError):
        return {"input": "other", "target": "other", "input_shape": (), "classes": config.classes}
    is_text = not first.is_floating_point() and first.ndim == 1 and target.shape == first.shape
    facts: dict[str, Any] = {"input": _input_kind(first, is_text), "input_shape": tuple(first.shape)}
    names = getattr(dataset, "classes", None)
    count = config.classes or (len(names) if isinstance(names, list | tuple) else None)
    if is_text:
        return facts | {"target": "next_token", "vocabulary": _needed(count, "the vocabulary", where)}
    if target.is_floating_point() and target.ndim <= 1:
        return facts | {"target": "number", "outputs": target.numel()}
    if target.ndim == 0:
        return facts | {"target": "class", "classes": _needed(count, "how many classes there are", where)}
    return facts | {"target": "other", "classes": count}


def _input_kind(first: Tensor, is_text: bool) -> str:
    if is_text:
        return "tokens"
    if first.ndim == 3:
        return "image"
    return "vector" if first.ndim == 1 and first.is_floating_point() else "other"


def _needed(count: int | None, what: str, where: str) -> int:
    if count is None:
        raise refuse(where, f"a sample does not tell {what}", "try data.classes=10, or give the data set `classes`")
    return count


def _check_arguments(factory: Any, config: Any, where: str) -> bool:
    """Whether the factory takes ``split``."""
    if not callable(factory):
        raise refuse(
            where, f"is a {type(factory).__name__}, not a function or class", "name one that returns a Dataset"
        )
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return True
    takes_split = "split" in signature.parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()
    )
    try:
        signature.bind(**({"split": "train"} if takes_split else {}), **config.args)
    except TypeError as error:
        raise refuse(
            f"data.args={config.args}", f"{config.factory}{signature}: {error}", "give data.args what it takes"
        ) from None
    return takes_split


def _checked(dataset: Any, where: str, split: Split) -> Any:
    if isinstance(dataset, IterableDataset):
        return dataset
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise refuse(
            where,
            f"returned a {type(dataset).__name__} for split={split}, which has no length or no samples by number",
            "return a torch.utils.data.Dataset",
        )
    if len(dataset) == 0:
        raise refuse(where, f"returned an empty data set for split={split}", "return one with samples")
    return dataset


def _cut(train: Any, shares: dict[Split, float], seed: int, factory: str) -> dict[Split, Any]:
    if isinstance(train, IterableDataset):
        raise ConfigError(
            [
                Problem(
                    f"data.factory={factory}",
                    f"returned nothing for split={split}, and a stream can't be cut by number",
                    f"return a data set for split={split}",
                )
                for split in shares
            ]
        )
    parts = cut(np.arange(len(train)), shares=shares, seed=seed)
    return {name: Subset(train, rows.tolist()) for name, rows in parts.items()}
