"""The law of parity: any strategy on any number of ranks trains as one process does, on the same batches.

Plain SGD, no momentum, no clipping, fp32: an average taken for a sum, or a batch weighed wrongly, shows in the losses.
At the end stands the table of all of them: `scripts/test tests/test_parity.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity_table import PARITY
from ranks import records, run_ranks, train_here, write_run
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from accel_cli.config.parts import table
from accel_cli.loader.order import Order

STEPS = 20
PLAIN = [
    "precision=fp32",
    "optimizer=sgd",
    "optimizer.momentum=0",
    "optimizer.weight_decay=0",
    "schedule=constant",
    "train.epochs=null",
    f"train.steps={STEPS}",
    "metrics.every=1",
    "evaluate.every=1000",
    "checkpoint.every=1000",
]
# 20 batches of 128 are more than two epochs of the digits, whose borders lie inside batches.
WORK = {
    "mlp": ["data=digits", "model=mlp", "train.global_batch=128", "optimizer.learning_rate=0.1"],
    "cnn": [
        "data=digits",
        "model=cnn",
        "model.normalisation=group",
        "model.channels=[8,16]",
        "train.global_batch=32",
        "optimizer.learning_rate=0.1",
    ],
    "gpt": [
        "data=stdlib_text",
        "data.length=16",
        "data.max_bytes=40000",
        "model=gpt",
        "model.width=16",
        "model.depth=2",
        "model.heads=2",
        "train.global_batch=16",
        "optimizer.learning_rate=0.1",
    ],
}
# BatchNorm keeps the statistics of a rank's own samples: frozen, it is the same function on any number of ranks.
WORK["resnet, batch norm frozen"] = [
    "data=digits",
    "model=resnet",
    "model.width=8",
    "model.blocks=[1,1]",
    "model.normalisation=batch",
    "transfer=finetune",
    "transfer.freeze=[*norm*,stem.1.*,*.shortcut.1.*]",
    "train.global_batch=32",
    "optimizer.learning_rate=0.05",
]
WORK["own"] = [*WORK["gpt"][:3], "model=custom", "model.factory=test_parity:Own", *WORK["gpt"][-2:]]
# Targets that do not count: every micro-batch of every rank has a weight of its own.
WORK["masked gpt"] = [
    "data=custom",
    "data.factory=test_parity:masked",
    "data.classes=32",
    "task=language_model",
    "task.ignored_targets=true",
    *WORK["gpt"][3:],
]


class OwnBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        q, k, v = (y.view(n, length, 2, width // 2).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(width, 2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(n, length, width))
        return x + self.out(functional.gelu(self.fc(self.ln_2(x))))


class Own(nn.Module):
    """A user's own transformer, as many are written; it knows nothing of accel."""

    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(256, width), nn.Embedding(16, width)
        self.h = nn.ModuleList(OwnBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.size(1), device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.head(x)


class Masked(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Runs of tokens counted up from a start; of sample i the first i % 7 targets count, at least one."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = (torch.arange(13) * (1 + index % 3) + index) % 32
        targets = tokens[1:].clone()
        targets[1 + index % 7 :] = -100
        return tokens[:-1], targets


def masked() -> Masked:
    return Masked()


def train_and_record(folder: str) -> list[tuple[int, list[int]]]:
    """The (step, indices) that this rank trained on, as its loader asked for them."""
    seen: list[tuple[int, list[int]]] = []
    share = Order.share

    def recorded(self: Order, step: int) -> Any:
        epochs, indices = share(self, step)
        seen.append((step, indices.tolist()))
        return epochs, indices

    Order.share = recorded  # type: ignore[method-assign]
    train_here(folder, expect=0, plugins=["test_parity"])
    return seen


def train(
    folder: Path, overrides: list[str], world_size: int
) -> tuple[list[Any], list[float], dict[str, torch.Tensor]]:
    """(indices of each global batch, in order; losses of each step; final weights)"""
    write_run(PLAIN + overrides, folder, world_size, plugins=["test_parity"])
    seen = run_ranks(train_and_record, world_size, str(folder))
    batches = []
    for step in range(STEPS):
        assert all(rank[step][0] == step for rank in seen)
        shares = dict.fromkeys(tuple(rank[step][1]) for rank in seen)  # ranks of one replica have the same
        batches.append([index for share in shares for index in share])
    losses = [record["loss"] for record in records(folder, "train")]
    assert len(losses) == STEPS
    weights = load_file(folder / "checkpoints" / "latest" / "model.safetensors")
    return batches, losses, weights


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("single")
    return {name: train(folder / name, work, 1) for name, work in WORK.items()}


CASES = [
    (name, world_size, parts)
    for name in ("mlp", "cnn", "gpt", "masked gpt")
    for world_size, parts in ((1, 2), (1, 4), (2, 1), (2, 2), (4, 1), (4, 4))
    if name == "mlp" or (world_size, parts) in ((1, 4), (2, 2), (4, 1))
]


def assert_parity(found: tuple[Any, ...], expected: tuple[Any, ...]) -> float:
    """The largest relative difference of a loss, once all is as it has to be."""
    batches, losses, weights = found
    expected_batches, expected_losses, expected_weights = expected
    assert batches == expected_batches
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert losses[-1] < losses[0], "nothing was learned, so equal losses would prove nothing"
    assert weights.keys() == expected_weights.keys()
    for key, value in expected_weights.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)
    return max(abs(a - b) / b for a, b in zip(losses, expected_losses, strict=True))


@pytest.mark.parametrize(("name", "world_size", "parts"), CASES)
def test_ranks_and_accumulation_change_nothing(
    tmp_path: Path, single: dict[str, Any], name: str, world_size: int, parts: int
) -> None:
    batch = int(next(w for w in WORK[name] if w.startswith("train.global_batch")).partition("=")[2])
    overrides = [*WORK[name], "strategy=ddp", f"train.micro_batch={batch // world_size // parts}"]
    assert_parity(train(tmp_path / "run", overrides, world_size), single[name])


MESH = ["strategy=mesh", "strategy.shard=1"]
LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "dataparallel": (1, ["strategy=dataparallel"]),
    "layers": (1, ["strategy=layers", "strategy.devices=[cpu,cpu]"]),
    "ddp": (2, ["strategy=ddp"]),
    "fsdp": (2, ["strategy=fsdp"]),
    "tensor": (2, ["strategy=tensor"]),
    "pipeline": (2, ["strategy=pipeline"]),
    "context": (2, ["strategy=context"]),
    "localsgd, every step": (2, ["strategy=localsgd", "strategy.steps=1"]),
    "diloco, every step, plain average": (
        2,
        ["strategy=diloco", "strategy.steps=1", "strategy.outer_learning_rate=1.0", "strategy.outer_momentum=0.0",
         "strategy.compression=none"],
    ),
    "hsdp: replicate 2 x shard 2": (4, ["strategy=hsdp"]),
    "mesh: shard 2 x tensor 2": (4, ["strategy=mesh", "strategy.shard=2", "strategy.tensor=2"]),
    "mesh: replicate 2 x pipeline 2": (4, [*MESH, "strategy.replicate=2", "strategy.pipeline=2"]),
    "mesh: tensor 2 x pipeline 2": (4, [*MESH, "strategy.tensor=2", "strategy.pipeline=2"]),
    "mesh: replicate 2 x tensor 2": (4, [*MESH, "strategy.replicate=2", "strategy.tensor=2"]),
    "mesh: shard 2 x context 2": (4, ["strategy=mesh", "strategy.shard=2", "strategy.context=2"]),
}  # fmt: skip
MODELS = ("mlp", "resnet, batch norm frozen", "gpt", "own")
WITHOUT_SEQUENCE = ("mlp", "resnet, batch norm frozen")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_nothing(
    tmp_path: Path, single: dict[str, Any], request: pytest.FixtureRequest, layout: str, name: str
) -> None:
    world_size, overrides = LAYOUTS[layout]
    if "context" in layout and name in WITHOUT_SEQUENCE:
        pytest.skip("context shares sequences, and this model has none")
    difference = assert_parity(train(tmp_path / "run", [*WORK[name], *overrides], world_size), single[name])
    request.config.stash.setdefault(PARITY, {})[layout, name] = difference


def test_every_strategy_is_in_the_table() -> None:
    named = {word for _, words in LAYOUTS.values() for word in words if word.startswith("strategy=")}
    assert named == {f"strategy={option}" for option in table("strategy") if option != "single"}


def test_the_losses_can_tell(tmp_path: Path, single: dict[str, Any]) -> None:
    """The same run at a rate one part in a hundred higher differs by more than the law allows."""
    rate = [*WORK["mlp"][:-1], "optimizer.learning_rate=0.101"]
    _, losses, _ = train(tmp_path / "run", rate, 2)
    assert losses != pytest.approx(single["mlp"][1], rel=1e-5)
