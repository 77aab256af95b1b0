"""Sequences in slices over ranks: the same training as one process, for models that know nothing of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import build_here, run_ranks, train_ranks, write_run
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.step import train_step
from accel_cli.errors import AccelError, ConfigError

HERE = ["test_context"]
STEPS = 20
PLAIN = ["precision=fp32", "optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "schedule=constant",
         "optimizer.learning_rate=0.1", "train.epochs=null", f"train.steps={STEPS}",
         "train.global_batch=16"]  # fmt: skip
TEXT = ["data=stdlib_text", "data.length=16", "data.max_bytes=40000"]
GPT = [*TEXT, "model=gpt", "model.width=12", "model.depth=2", "model.heads=2"]
OWN = [*TEXT, "model=custom", "model.args.vocabulary=256"]
WORK = {
    "gpt": GPT,
    "gpt, tied, accumulated, recomputed": [
        *GPT,
        "model.weight_tying=true",
        "train.micro_batch=8",
        "train.activation_checkpointing=blocks",
    ],
    "vit": [
        "optimizer.learning_rate=0.5",
        "data=digits",
        "model=vit",
        "model.patch=2",
        "model.width=12",
        "model.depth=2",
        "model.heads=2",
    ],
    "torch": [*OWN, "model.factory=test_context:Torchs"],
    "padded": [*OWN, "model.factory=test_context:Padded"],
    "rotary": [*OWN, "model.factory=test_context:Rotary", "model.args.heads=6", "model.args.shared=3"],
    "reshaping": [*OWN, "model.factory=test_context:Reshaping"],
    "custom task": [
        *OWN,
        "model.factory=test_context:Rotary",
        "task=custom",
        "task.factory=test_context:Own",
        "task.metric=loss",
        "task.mode=min",
    ],
}


class Torchs(nn.Module):
    """Torch's own encoder with a causal mask, the sequence first, by way of nn.MultiheadAttention."""

    def __init__(self, vocabulary: int, heads: int = 2, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 12)
        self.positions = nn.Embedding(16, 12)
        layer = nn.TransformerEncoderLayer(12, heads, 24, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.head = nn.Linear(12, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = (self.embedding(tokens) + self.positions.weight[:length]).transpose(0, 1)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.encoder(x, mask, is_causal=True).transpose(0, 1))


class Padded(Torchs):
    """A mask of keys, [n, length], by the tokens of each sample."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = (self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]).transpose(0, 1)
        return self.head(self.encoder(x, src_key_padding_mask=tokens % 3 == 0).transpose(0, 1))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((left * cosine - right * sine, left * sine + right * cosine), -1)


class RotaryBlock(nn.Module):
    """Heads that share ``shared`` keys and values, rotated by angles from outside."""

    def __init__(self, heads: int, shared: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(heads * 4)
        self.query = nn.Linear(heads * 4, heads * 4)
        self.key_value = nn.Linear(heads * 4, 2 * shared * 4)
        self.out = nn.Linear(heads * 4, heads * 4)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        normed = self.norm(x)
        query = self.query(normed).unflatten(-1, (-1, 4)).transpose(1, 2)
        key, value = self.key_value(normed).unflatten(-1, (-1, 4)).transpose(1, 2).chunk(2, 1)
        query, key = (rotate(part, *angles) for part in (query, key))
        mixed = functional.scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class Rotary(nn.Module):
    """Grouped queries, a mask of its own and rotary positions, handed to every block."""

    Block = RotaryBlock

    def __init__(self, vocabulary: int, heads: int = 4, shared: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, heads * 4)
        self.layers = nn.ModuleList(self.Block(heads, shared) for _ in range(2))
        self.head = nn.Linear(heads * 4, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        angles = torch.arange(length)[:, None] / torch.tensor([1.0, 10.0])
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, (angles.cos(), angles.sin()), mask)
        return self.head(x)


class Reshaping(Rotary):
    """Ends in the shape of its inputs, as transformers' gpt2 does: it cannot end in slices."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).view(*tokens.shape, -1)


class Own:
    """A loss that only its author knows: here the mean over positions of the next token's cross-entropy."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


Trained = tuple[list[float], dict[str, float], dict[str, Tensor]]


def train_all(folders: dict[str, str]) -> dict[str, Trained]:
    """name -> (the global loss of each step, metrics, final weights)"""
    results = {}
    for name, folder in folders.items():
        t = build_here(folder, HERE)
        batches = t.loader.batches(0, STEPS)
        losses = []
        for step in range(STEPS):
            t.step = step
            report = train_step(t, next(batches))
            losses.append(float(t.strategy.losses.sum(report.loss)) / report.weight)
        results[name] = losses, evaluate(t, "validation"), {k: v.detach() for k, v in t.bare.state_dict().items()}
    return results


def write_all(folder: Path, work: dict[str, list[str]], world_size: int) -> dict[str, str]:
    strategy = ["strategy=context"] if world_size > 1 else []
    return {name: str(write_run([*PLAIN, *w, *strategy], folder / name, world_size, HERE)) for name, w in work.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Trained], list[dict[str, Trained]]]:
    whole = run_ranks(train_all, 1, write_all(tmp_path_factory.mktemp("whole"), WORK, 1))[0]
    return whole, run_ranks(train_all, 2, write_all(tmp_path_factory.mktemp("slices"), WORK, 2))


@pytest.mark.parametrize("name", WORK)
def test_slices_train_as_the_whole_sequence_does(
    trained: tuple[dict[str, Trained], list[dict[str, Trained]]], name: str
) -> None:
    whole_losses, whole_metrics, whole_weights = trained[0][name]
    for rank in trained[1]:
        losses, metrics, weights = rank[name]
        assert losses == pytest.approx(whole_losses, rel=1e-5)
        assert losses[-1] < losses[0], "nothing was learned, so equal losses would prove nothing"
        assert metrics == pytest.approx(whole_metrics, rel=1e-5)
        for key, value in whole_weights.items():
            torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)


class CountingBlock(RotaryBlock):
    """Counts positions itself, so that every slice begins at 0."""

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        own = torch.arange(x.shape[1])[:, None] / torch.tensor([1.0, 10.0])
        return super().forward(x, (own.cos(), own.sin()), mask)


class MaskingBlock(RotaryBlock):
    """Makes a causal mask for the positions that it sees."""

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        return super().forward(x, angles, mask[: x.shape[1], : x.shape[1]])


class ShiftingBlock(RotaryBlock):
    """Lets every position see the one before it, which at a slice's border is another rank's."""

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = super().forward(x, angles, mask)
        return x + functional.pad(x, (0, 0, 1, 0))[:, :-1]


class ByHandBlock(RotaryBlock):
    """Attention in three products of its own."""

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        query = self.query(x)
        return x + self.out((query @ query.transpose(1, 2)).softmax(-1) @ x)


class Counting(Rotary):
    Block = CountingBlock


class Masking(Rotary):
    Block = MaskingBlock


class Shifting(Rotary):
    Block = ShiftingBlock


class ByHand(Rotary):
    Block = ByHandBlock


class Flat(nn.Module):
    """Nothing in it repeats."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)


REFUSED = {
    "heads": ([*OWN, "model.factory=test_context:Torchs", "model.args.heads=3"], "3 heads", "try strategy=ddp"),
    "length": (["data=digits", "model=vit", "model.patch=8"], "a sequence has 1 positions", "try strategy=ddp"),
    "no blocks": ([*OWN, "model.factory=test_context:Flat"], "found no blocks", "train.blocks=[encoder.layers.*]"),
    "by hand": ([*OWN, "model.factory=test_context:ByHand"], "scaled_dot_product_attention", "try strategy=ddp"),
    "counting": ([*OWN, "model.factory=test_context:Counting"], "counts positions itself", "hand them in"),
    "masking": ([*OWN, "model.factory=test_context:Masking"], "a block makes a mask [8, 8] itself", "try strategy=ddp"),
    "shifting": ([*OWN, "model.factory=test_context:Shifting"], "mixed outside of attention", "try strategy=ddp"),
}


def refusals(folders: dict[str, str]) -> dict[str, str]:
    """name -> what building it raised"""
    found = {}
    for name, folder in folders.items():
        with pytest.raises(ConfigError) as raised:
            build_here(folder, HERE)
        found[name] = str(raised.value)
    return found


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    work = {name: case[0] for name, case in REFUSED.items()}
    return run_ranks(refusals, 2, write_all(tmp_path_factory.mktemp("refused"), work, 2))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_on_every_rank_with_what_to_type(refused: list[dict[str, str]], name: str) -> None:
    _, why, fix = REFUSED[name]
    assert refused[0][name] == refused[1][name]
    assert why in refused[0][name]
    assert fix in refused[0][name]


def another_length(folder: str) -> tuple[str, str]:
    training = build_here(folder, HERE)
    with pytest.raises(AccelError) as raised:
        training.model(torch.ones(2, 15, dtype=torch.long))
    return raised.value.message, raised.value.fix


def test_a_later_batch_that_does_not_divide_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_run([*PLAIN, *GPT, "strategy=context"], tmp_path, 2)
    expected = "a sequence has 15 positions, for 2 ranks", "pad sequences to a multiple of 2"
    assert run_ranks(another_length, 2, str(tmp_path)) == [expected] * 2


def test_a_resumed_run_repeats_bit_for_bit(tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    words = [*PLAIN, *GPT, "model.dropout=0.1", "train.steps=6", "checkpoint.every=3", "checkpoint.keep_last=9"]
    train_ranks([*words, "strategy=context"], straight, 2)
    shutil.copytree(straight, resumed, symlinks=True)
    (resumed / "summary.json").unlink()
    shutil.rmtree(resumed / "checkpoints" / "step-00000006")
    assert train_ranks([], resumed, 2, resume=True)["lost_steps"] == 3
    own, expected = (load_file(f / "checkpoints" / "step-00000006" / "model.safetensors") for f in (resumed, straight))
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], value) for name, value in expected.items())
