"""What a module that does not change gives is computed once: whatever it follows from is in the key, nothing else."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import compose, run_ranks
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from accel_cli.config.parts import implementation
from accel_cli.data.arrays import ArrayDataset
from accel_cli.data.base import quiet
from accel_cli.engine.batches import augmentation
from accel_cli.engine.features import Rows
from accel_cli.engine.outputs import Outputs
from accel_cli.errors import ConfigError, ResourceError
from accel_cli.loader.finish import Finish

WORDS = ["data=synthetic", "data.samples=40", "data.height=8", "data.width=8", "model=cnn", "evaluate.batch=16"]
AUGMENT = [*WORDS, "augment=basic", "augment.transforms.basic.crop=2"]
CPU = torch.device("cpu")


class Net(nn.Module):
    """Counts the samples that have passed through it."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 5))
        self.noise = nn.Dropout(0.5)
        self.dtype = dtype
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.noise(images.flatten(1)[:, :5] * self.weight).to(self.dtype)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "accel"


def outputs(words: list[str], data: Any = None) -> Outputs:
    run = compose(words, 1)
    data = data or implementation("data", run.data)(run.data, run.train.seed)
    description = data.describe()
    task = implementation("task", run.task)(run.task, description)
    augment = augmentation(run, description)
    precision = implementation("precision", run.precision)(run.precision, CPU)
    return Outputs(
        run=run, data=data, augment=augment, task=task, example=None, precision=precision, device=CPU, report=quiet
    )


def keep(found: Outputs, net: Net, views: int = 1, split: str = "train", **more: Any) -> Any:
    def forward(batch: Any) -> Tensor:
        return net(batch[0])

    return found.keep("test", net, forward, split, views=views, where="here", otherwise="this", **more)  # type: ignore[arg-type]


def test_every_view_is_that_epochs_augmentation_and_turns_come_by_epoch() -> None:
    found, net = outputs(AUGMENT), Net()
    table = keep(found, net, views=3, with_targets=True)
    data, indices = found.data.split("train"), torch.tensor([7, 0, 19])
    for epoch in range(7):
        epochs = torch.full_like(indices, epoch % 3)
        finished = Finish(found.description, CPU, found.augment)(data.batch(indices), epochs, indices)
        expected = net.eval()(finished[0])
        assert torch.equal(table.rows(torch.full_like(indices, epoch), indices), expected)
        inputs, targets = Rows(table).batch(indices, epochs)
        assert torch.equal(inputs, expected)
        assert torch.equal(targets, data.batch(indices)[1])
    assert not torch.equal(table.outputs[0], table.outputs[1])
    assert len(keep(outputs(WORDS), net, views=3).outputs) == 1, "nothing is drawn"


def test_a_second_run_computes_nothing() -> None:
    first, again = Net(), Net()
    one = keep(outputs(AUGMENT), first, views=2)
    other = keep(outputs(AUGMENT), again, views=2)
    assert (first.seen, again.seen) == (2 * len(one.outputs[0]), 0)
    assert torch.equal(one.outputs, other.outputs)
    assert first.training


CHANGES: dict[str, list[str]] = {
    "data": [*AUGMENT, "data.noise=0.3"],
    "augment": [*AUGMENT, "augment.transforms.basic.flip=0.1"],
    "precision": [*AUGMENT, "precision=bf16"],
    "seed": [*AUGMENT, "train.seed=1"],
}


@pytest.mark.parametrize("change", [*CHANGES, "weights", "views", "split"])
def test_what_it_follows_from_is_in_the_key(change: str) -> None:
    keep(outputs(AUGMENT), Net(), views=2)
    net, words = Net(), CHANGES.get(change, AUGMENT)
    with torch.no_grad():
        net.weight[2] += 1e-6 if change == "weights" else 0
    split = "validation" if change == "split" else "train"
    keep(outputs(words), net, views=3 if change == "views" else 2, split=split)
    assert net.seen > 0


@pytest.mark.parametrize("words", [[*AUGMENT, "optimizer=sgd"], [*AUGMENT, "train.global_batch=8"]])
def test_nothing_else_is(words: list[str]) -> None:
    keep(outputs(AUGMENT), Net())
    net = Net()
    keep(outputs(words), net)
    assert net.seen == 0


def test_weights_that_it_does_not_follow_from_are_left_out() -> None:
    class Headed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 2)

    keep(outputs(WORDS), Headed(), leave_out=["head.weight", "head.bias"])
    net = Headed()
    keep(outputs(WORDS), net, leave_out=["head.weight", "head.bias"])
    assert net.seen == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_outputs_keep_their_type(dtype: torch.dtype) -> None:
    net = Net(dtype)
    found = outputs(WORDS)
    table = keep(found, net)
    inputs = Finish(found.description, CPU)(found.data.split("train").batch(torch.arange(3)), *[torch.arange(3)] * 2)
    assert torch.equal(table.outputs[0, :3], net.eval()(inputs[0]))


def test_a_full_disk_is_told_before_it_is_full(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("U", "total used free")(10, 5, 100))
    with pytest.raises(ResourceError) as raised:
        keep(outputs(WORDS), Net())
    assert "needs 640 bytes" in raised.value.message
    assert raised.value.fix.endswith("XDG_CACHE_HOME=/a/folder, or this")
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_one_that_was_cut_off_is_never_read(cache: Path) -> None:
    class Failing(Net):
        def forward(self, images: Tensor) -> Tensor:
            if self.seen:
                raise KeyboardInterrupt
            return super().forward(images)

    with pytest.raises(KeyboardInterrupt):
        keep(outputs(WORDS), Failing())
    assert not [path for path in cache.iterdir() if path.is_dir()]


class Own(Dataset[Any]):
    """Draws, and has no ``batch``."""

    def __init__(self, sizes: bool = False) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.rand(1, 8, 8), index % 2


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Own())


class Given:
    """Data of a test's own making."""

    collate = None

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def describe(self) -> Any:
        return outputs(WORDS).description

    def split(self, name: str) -> Any:
        return self.dataset


def test_a_data_set_that_draws_is_drawn_again_for_each_view() -> None:
    net = Net()
    table = keep(outputs(WORDS, Given(Own())), net, views=2)
    assert not torch.equal(table.outputs[0], table.outputs[1])
    seen = net.seen
    again = keep(outputs(WORDS, Given(Own())), net, views=2)
    assert net.seen == seen == 40
    assert torch.equal(table.outputs, again.outputs)


def test_what_has_no_samples_by_number_or_no_one_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="stream"):
        keep(outputs(WORDS, Given(Endless())), Net())

    class Ragged(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, : len(images) % 3 + 1]

    with pytest.raises(ConfigError, match="pad the samples"):
        keep(outputs(WORDS, Given(ArrayDataset(torch.rand(18, 1, 8, 8), torch.zeros(18).long()))), Ragged())


def kept_in(cache: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache)
        net = Net()
        keep(outputs(AUGMENT), net, views=4)
        return net.seen


def test_ranks_of_a_machine_compute_it_once(tmp_path: Path) -> None:
    seen = run_ranks(kept_in, 3, str(tmp_path))
    assert sorted(seen)[:2] == [0, 0]
    assert max(seen) > 0
