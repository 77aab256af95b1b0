"""Muon: which weights it takes, that it equals torch's, and that the combination is one optimizer."""

import copy

import pytest
import torch
from optimizer_cases import build, configured, network, train
from torch import nn
from torch.optim._muon import _zeropower_via_newtonschulz

from accel_cli.errors import ConfigError
from accel_cli.optimizer.groups import parameter_groups
from accel_cli.optimizer.muon import COEFFICIENTS, TINY, orthogonal


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        self.up = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.down = nn.Linear(16, 8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        self.lm_head.weight = self.tokens.weight

    def forward(self, inputs):
        return self.lm_head(self.down(self.norm(self.up(self.tokens(inputs) + self.pos_embed))))


def matrices(model):
    groups = parameter_groups(model, configured("muon"), {})
    return {name for group in groups if group["matrix"] for name in group["names"]}


def test_only_hidden_matrices():
    assert matrices(Language()) == {"up.weight", "down.weight"}
    assert matrices(network()) == {"0.weight", "3.weight"}


def test_filters_are_matrices_too():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 2))
    assert matrices(model) == {"0.weight", "2.weight"}


def test_equals_torch_on_both_parts():
    mine, other = network(), network()
    optimizer = build("muon", mine, learning_rate=0.02, weight_decay=0.1, adamw_rate=0.1)
    inner = [other[0].weight, other[3].weight]
    head = {"params": [other[4].weight], "weight_decay": 0.1}
    vectors = {"params": [p for p in other.parameters() if p.dim() < 2], "weight_decay": 0.0}
    muon = torch.optim.Muon(inner, lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW([head, vectors], lr=0.002, betas=(0.9, 0.95), foreach=False)

    class Both:
        def step(self):
            muon.step()
            adamw.step()

        def zero_grad(self):
            other.zero_grad()

    train(mine, optimizer, 50)
    train(other, Both(), 50)
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_filter_update_is_that_of_the_flat_matrix(layout):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.Flatten(), nn.Linear(6, 2, bias=False))
    matrix = nn.Parameter(model[0].weight.detach().flatten(1).clone())
    model = model.to(memory_format=layout)
    assert model[0].weight.is_contiguous(memory_format=layout)
    ours = build("muon", model, learning_rate=0.02, weight_decay=0.1)
    reference = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(6, 4, 3, 3)
        model[0].weight.grad = gradient.clone(memory_format=torch.contiguous_format)
        matrix.grad = gradient.flatten(1)
        ours.step()
        reference.step()
    torch.testing.assert_close(model[0].weight.detach().flatten(1), matrix.detach(), rtol=0, atol=1e-7)


def test_a_stack_of_matrices_has_the_bits_of_each():
    torch.manual_seed(0)
    shapes = [(8, 8), (16, 8), (8, 16), (8, 8), (16, 8), (128, 384), (128, 384), (384, 128)]
    matrices = [torch.randn(shape) for shape in shapes]
    for matrix, found in zip(matrices, orthogonal(matrices, 5), strict=True):
        assert torch.equal(found, _zeropower_via_newtonschulz(matrix, COEFFICIENTS, 5, TINY))


def test_no_hidden_matrix_is_refused():
    with pytest.raises(ConfigError, match="optimizer=adamw"):
        build("muon", nn.Sequential(nn.Linear(4, 2)))


def test_combined_is_one_optimizer():
    model = Language()
    optimizer = build("muon", model)
    assert [type(part).__name__ for part in optimizer.parts] == ["Muon", "AdamW"]
    assert len(optimizer.state) == 0
    first = next(model.parameters())
    assert first not in optimizer.state
    assert optimizer.state.get(first, {}) == {}
    assert len(optimizer.state) == 0
    optimizer.param_groups[0]["lr"] = 0.125
    assert optimizer.parts[0].param_groups[0]["lr"] == 0.125
    model(torch.randint(11, (2, 5))).square().mean().backward()
    optimizer.step()
    assert set(optimizer.state) == set(model.parameters())
    assert set(optimizer.state[model.up.weight]) == {"momentum_buffer"}
    assert set(optimizer.state[model.up.bias]) == {"step", "exp_avg", "exp_avg_sq"}
    optimizer.state[model.up.weight] = {"momentum_buffer": torch.ones(16, 8)}
    assert optimizer.parts[0].state[model.up.weight]["momentum_buffer"].sum() == 128
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_combined_shares_groups_also_after_loading():
    model = network()
    optimizer = build("muon", model)
    train(model, optimizer, 2)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    groups = [group for part in optimizer.parts for group in part.param_groups]
    assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
    assert set(optimizer.state) == set(model.parameters())


def test_state_written_back_by_parameter_continues_the_same_bits():
    model, other = network(), network()
    optimizer = build("muon", model)
    train(model, optimizer, 3)
    other.load_state_dict(model.state_dict())
    again = build("muon", other)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        again.state[q] = {key: value.clone() for key, value in optimizer.state[p].items()}
    train(model, optimizer, 3, seed=5)
    train(other, again, 3, seed=5)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
