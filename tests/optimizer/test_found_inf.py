"""A non-finite update is skipped on the device, and nothing but the update."""

import copy

import pytest
import torch
from optimizer_cases import build, network, train

from accel_cli.optimizer.base import laid_out_as, supports_found_inf

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


@pytest.mark.parametrize("option", ["sgd", "adam", "adamw", "adagrad", "muon", "rmsprop"])
def test_state_without_strides_continues_the_same_bits(option):
    """A file keeps no strides, and fused kernels on a CPU go by address."""

    def images():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.Flatten(), torch.nn.Linear(4, 2))
        return model.to(memory_format=torch.channels_last)

    def steps(model, optimizer):
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            model(torch.randn(5, 3, 2, 2, generator=generator)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    model, resumed = images(), images()
    optimizer, again = build(option, model), build(option, resumed)
    steps(model, optimizer)
    resumed.load_state_dict(model.state_dict())
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        for entry, value in optimizer.state[p].items():
            stored = value.clone(memory_format=torch.contiguous_format) if torch.is_tensor(value) else value
            tensor = torch.is_tensor(value) and value.dim() > 0
            again.state[q][entry] = laid_out_as(q, stored) if tensor else stored
    steps(model, optimizer)
    steps(resumed, again)
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
