"""A non-finite update is skipped on the device, and nothing but the update."""

import copy

import pytest
import torch
from optimizer_cases import build, network, train

from accel_cli.optimizer.base import supports_found_inf

FUSED = ["sgd", "adam", "adamw", "adagrad"]


def everything(model, optimizer):
    states = optimizer.state_dict()["state"]
    tensors = [value for state in states.values() for value in state.values() if torch.is_tensor(value)]
    return [tensor.clone() for tensor in [*model.parameters(), *tensors]]


@pytest.mark.parametrize("warm_steps", [0, 3])
@pytest.mark.parametrize("option", FUSED)
def test_one_skips_and_zero_updates(option, warm_steps):
    model = network()
    optimizer = build(option, model)
    assert supports_found_inf(optimizer)
    train(model, optimizer, warm_steps)
    before = everything(model, optimizer)
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    after = everything(model, optimizer)
    assert warm_steps == 0 or len(after) == len(before)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=False))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=False))


@pytest.mark.parametrize("option", FUSED)
def test_a_skipped_first_step_leaves_no_trace(option):
    """Fused SGD allocates its momentum uninitialised at the first step, skipped or not."""
    plain, skipping = network(), network()
    first, second = build(option, plain), build(option, skipping)
    for p in skipping.parameters():
        p.grad = torch.full_like(p, float("inf"))
    second.found_inf = torch.tensor(1.0)
    second.step()
    second.zero_grad()
    second.found_inf = torch.tensor(0.0)
    train(plain, first, 5)
    train(skipping, second, 5)
    for p, q in zip(plain.parameters(), skipping.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("option", ["rmsprop", "nadam", "muon"])
def test_those_without_it_say_so(option):
    assert not supports_found_inf(build(option, network()))


def test_only_what_is_known_to_heed_it():
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            return None

    parameters = [torch.nn.Parameter(torch.ones(2))]
    assert supports_found_inf(torch.optim.SGD(parameters, lr=0.1, fused=True))
    assert not supports_found_inf(torch.optim.SGD(parameters, lr=0.1, fused=True, momentum=0.9))
    assert not supports_found_inf(torch.optim.SGD(parameters, lr=0.1))
    assert not supports_found_inf(Own(parameters, lr=0.1, fused=True))


@pytest.mark.parametrize("option", ["sgd", "adamw", "adagrad", "muon", "rmsprop"])
def test_state_read_and_written_back_continues_the_same_bits(option):
    model = network()
    optimizer = build(option, model)
    train(model, optimizer, 4)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    train(model, optimizer, 4, seed=2)

    resumed = network(seed=9)
    resumed.load_state_dict(weights)
    again = build(option, resumed)
    again.load_state_dict(saved)
    train(resumed, again, 4, seed=2)
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
