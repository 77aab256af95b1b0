"""Tensor parallelism on real ranks: the training of one process, its checkpoint, and what is refused."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from nets import Recurrent, Small, Transformer
from ranks import run_ranks, train_ranks, write_run
from test_resume import assert_equal_runs, back_to
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn import functional

from accel_cli.config import factory
from accel_cli.config import run as run_file
from accel_cli.engine import setup
from accel_cli.engine.step import train_step
from accel_cli.errors import ConfigError
from accel_cli.strategy.tensor import parallelize

transformers = importlib.util.find_spec("transformers") is not None

HERE = ["test_tensor"]
STEPS = 20
PLAIN = [
    "precision=fp32", "optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0",
    "optimizer.learning_rate=0.1", "schedule=constant", "train.epochs=null", f"train.steps={STEPS}",
    "train.global_batch=16", "metrics.every=1", "evaluate.every=1000", "checkpoint.every=1000",
]  # fmt: skip
TEXT = ["data=stdlib_text", "data.length=16", "data.max_bytes=40000"]
GPT = [*TEXT, "model=gpt", "model.width=16", "model.depth=2", "model.heads=2"]
WORK = {
    "mlp": ["data=digits", "model=mlp", "model.widths=[32,15]"],
    "resnet": ["data=digits", "model=custom", "model.factory=test_tensor:small"],
    "gpt": GPT,
    "vit": ["data=digits", "model=vit", "model.patch=2", "model.width=16", "model.depth=2", "model.heads=2"],
    "own": [*TEXT, "model=custom", "model.factory=test_tensor:transformer"],
    "recurrent": [*TEXT, "model=custom", "model.factory=test_tensor:recurrent"],
    "own loss": ["data=digits", "model=mlp", "model.widths=[32,15]", "task=custom", "task.factory=test_tensor:OwnLoss"],
    "own static": [*TEXT, "model=custom", "model.factory=test_tensor:static"],
}
PATTERN = "strategy.plan={blocks.*.expand:colwise,blocks.*.contract:rowwise,head:colwise_gather_output}"
MESH = ["strategy=mesh", "strategy.tensor=2"]
# (work, overrides, ranks, what is said of the plan)
CASES: dict[str, tuple[str, list[str], int, str]] = {
    "mlp": ("mlp", [], 2, "2 of 3 matrices"),
    "resnet": ("resnet", [], 2, "2 of 4 matrices"),
    "gpt": ("gpt", [], 2, "12 of 13 matrices"),
    "gpt on slices of the sequence": ("gpt", ["strategy.sequence_parallel=true"], 2, "12 of 13 matrices"),
    "gpt by pattern": ("gpt", [PATTERN], 2, "5 of 13"),
    "vit on slices of the sequence": ("vit", ["strategy.sequence_parallel=true"], 2, "12 of 14 matrices"),
    "own": ("own", [], 2, "14 of 15 matrices"),
    "recurrent": ("recurrent", [], 2, "2 of 2 matrices"),
    "own loss": ("own loss", [], 2, "2 of 3 matrices"),
    "own static": ("own static", [], 2, "6 of 15 matrices"),
    "gpt, heads fewer than ranks": ("gpt", [], 4, "4 of 13 matrices"),
    "gpt, shard x tensor": ("gpt", MESH, 4, "12 of 13 matrices"),
    "own, shard x tensor": ("own", MESH, 4, "14 of 15 matrices"),
    "gpt on slices, replicate x tensor": (
        "gpt", [*MESH, "strategy.replicate=2", "strategy.sequence_parallel=true"], 4, "12 of 13",
    ),
}  # fmt: skip


def small(classes: int = 10) -> nn.Module:
    return Small(classes=classes)


def transformer() -> nn.Module:
    return Transformer(vocabulary=256)


def recurrent() -> nn.Module:
    return Recurrent(vocabulary=256)


def static() -> nn.Module:
    return Transformer(vocabulary=256, static=True)


class OwnLoss:
    """A sum and what to divide it by."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def train(folder: str) -> tuple[list[str], list[float], dict[str, torch.Tensor]]:
    """(what setup said, losses of each step, whole weights at the end; {} but on rank 0)"""
    factory.grant(HERE)
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    lines: list[str] = []
    t, _ = setup.build(run, hardware, world, lines.append)
    t.train_mode()
    batches, losses = t.loader.batches(0, STEPS), []
    for _ in range(STEPS):
        report = train_step(t, next(batches))
        t.step += 1
        losses.append(float(t.strategy.losses.sum(report.loss.clone())) / report.weight)
    return lines, losses, t.strategy.gather(dict(t.bare.state_dict()))


def train_all(folders: list[str]) -> list[Any]:
    return [train(folder) for folder in folders]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``train`` gave on rank 0, by work and by case: one world for all runs of a size."""
    root = tmp_path_factory.mktemp("runs")
    runs = {work: (overrides, 1) for work, overrides in WORK.items()}
    runs |= {case: ([*WORK[work], "strategy=tensor", *more], ranks) for case, (work, more, ranks, _) in CASES.items()}
    found: dict[str, Any] = {}
    for ranks in (1, 2, 4):
        names = [name for name, run in runs.items() if run[1] == ranks]
        folders = [str(write_run([*PLAIN, *runs[name][0]], root / name, ranks, HERE)) for name in names]
        found |= zip(names, run_ranks(train_all, ranks, folders)[0], strict=True)
    return found


@pytest.mark.parametrize("case", CASES)
def test_cut_matrices_train_as_whole_ones(outcomes: dict[str, Any], case: str) -> None:
    work, _, _, plan = CASES[case]
    _, expected, weights = outcomes[work]
    lines, losses, held = outcomes[case]
    assert plan in lines[0]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0], "nothing was learned, so equal losses would prove nothing"
    assert {name: tensor.shape for name, tensor in held.items()} == {n: t.shape for n, t in weights.items()}
    for name, tensor in weights.items():
        torch.testing.assert_close(held[name], tensor, rtol=1e-3, atol=1e-5)


def test_what_stays_whole_is_said_with_its_reason(outcomes: dict[str, Any]) -> None:
    assert "whole on every rank: layers.*.q, layers.*.k, layers.*.v > layers.*.o: " in outcomes["own static"][0][1]
    assert "unflatten" in outcomes["gpt, heads fewer than ranks"][0][1]


TRANSFORMERS = {
    "llama": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2,
              "intermediate_size": 32, "vocab_size": 66},
    "qwen3": {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 32, "vocab_size": 65, "head_dim": 8},
    "gpt2": {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 65, "resid_pdrop": 0.0, "attn_pdrop": 0.0,
             "embd_pdrop": 0.0},
}  # fmt: skip


def train_transformers(sizes: dict[str, Any]) -> dict[str, list[list[float]]]:
    """By architecture: losses of the whole model, and of the same one cut over all ranks."""
    import transformers  # seconds, and not always there

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    config = SimpleNamespace(option="tensor", plan="auto", sequence_parallel=False)
    tokens = torch.arange(64).view(8, 8) * 7 % 65
    found: dict[str, list[list[float]]] = {}
    for name, args in sizes.items():
        for cut in (False, True):
            torch.manual_seed(0)
            settings = transformers.CONFIG_MAPPING[name](**args)
            settings.use_cache = False
            model = transformers.AutoModelForCausalLM.from_config(settings)
            model.register_forward_hook(lambda module, inputs, output: output.logits)
            if cut:
                forward = partial(apply_to, tokens[:2])
                parallelize(model, mesh, config, forward, forward, torch.device("cpu"))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            losses = []
            for _ in range(STEPS):
                loss = functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
            found.setdefault(name, []).append(losses)
    return found


def apply_to(tokens: torch.Tensor, model: nn.Module) -> Any:
    return model(tokens)


@pytest.mark.skipif(not transformers, reason="the extra transformers is not installed")
def test_transformers_models_train_as_whole_ones() -> None:
    for found in run_ranks(train_transformers, 2, TRANSFORMERS):
        for name, (whole, cut) in found.items():
            assert cut == pytest.approx(whole, rel=1e-5), name
            assert whole[-1] < whole[0]


def kept(folder: str) -> tuple[int, int, list[bool]]:
    """(elements of parameters that this rank holds, of the whole model; whether the gradients of whole parameters are
    the same bits on every rank, by parameter)"""
    factory.grant(HERE)
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    t, _ = setup.build(run, hardware, world, print)
    t.train_mode()
    t.strategy.forward_backward(t, next(t.loader.batches(0, 1)))
    held = 0
    alike = []
    for parameter in t.parameters:
        assert isinstance(parameter, DTensor)
        assert isinstance(parameter.grad, DTensor)
        held += parameter.to_local().numel()
        if parameter.placements[0].is_replicate():
            own = parameter.grad.to_local()
            sum_of_all = t.world.sum(own.clone())
            alike.append(torch.equal(sum_of_all / t.world.world_size, own) and bool(own.any()))
    return held, sum(p.numel() for p in t.parameters), alike


@pytest.mark.parametrize("sequence", ["false", "true"])
def test_a_rank_holds_its_part_and_agrees_on_the_rest(tmp_path: Path, sequence: str) -> None:
    folder = write_run([*PLAIN, *GPT, "strategy=tensor", f"strategy.sequence_parallel={sequence}"], tmp_path, 2)
    for held, whole, alike in run_ranks(kept, 2, str(folder)):
        cut = 2 * 12 * 16 * 16
        assert held == whole - cut / 2
        assert len(alike) == 8
        assert all(alike)


SLICED = "strategy.sequence_parallel=true"
STATE = [
    "precision=fp32", "train.epochs=null", "train.global_batch=16", "metrics.every=1", "optimizer=adamw",
    "train.ema=0.9", "train.clip_norm=0.1", "checkpoint.every=1", "checkpoint.keep_last=100", "evaluate.every=2",
    "train.steps=6", "model.dropout=0.1",
]  # fmt: skip


def test_resume_repeats_bit_for_bit(tmp_path: Path) -> None:
    overrides = [*STATE, *GPT, "strategy=tensor"]
    train_ranks(overrides, tmp_path / "straight", 2)
    back_to(3, tmp_path / "straight", tmp_path / "again")
    train_ranks(overrides, tmp_path / "again", 2, resume=True)
    assert_equal_runs(tmp_path / "again", tmp_path / "straight", 6)


@pytest.mark.parametrize(
    ("overrides", "ranks", "where", "why", "fix"),
    [
        (
            ["model=mlp", "model.widths=[7]"],
            2,
            "strategy=tensor",
            "7 outputs of 1 do not divide by 2",
            "strategy=fsdp",
        ),
        (
            ["model=mlp", "model.widths=[6]"],
            4,
            "strategy=tensor",
            "6 outputs of 1 do not divide",
            "launch.processes=3",
        ),
        (["model=mlp", SLICED], 2, SLICED, "sequence_plan", "=false"),
        (["model=gpt", *TEXT, "data.length=15", "model.heads=2", SLICED], 2, SLICED, "14 and 16 do", "=false"),
        (["model=mlp", "strategy.plan={1:rowwise}"], 2, "strategy.plan.1", "reads more than", "strategy.plan=auto"),
    ],
)
def test_refusals_say_what_to_type(
    tmp_path: Path, overrides: list[str], ranks: int, where: str, why: str, fix: str
) -> None:
    folder = write_run([*PLAIN, "data=digits", "strategy=tensor", *overrides], tmp_path, ranks)
    for problems in run_ranks(refused, ranks, str(folder)):
        assert problems[0].where == where
        assert why in problems[0].why
        assert fix in problems[0].fix


def refused(folder: str) -> Any:
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    with pytest.raises(ConfigError) as raised:
        setup.build(run, hardware, world, print)
    return raised.value.problems
