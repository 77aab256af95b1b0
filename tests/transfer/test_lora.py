"""LoRA: what is added begins as nothing, is all that is trained beside the head, and ends as plain weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from borders import border
from test_transfer import make
from torch import Tensor, nn

from accel_cli.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(6)
        self.mixed = nn.Conv2d(6, 6, 3, groups=3)
        self.hidden = nn.Linear(6, 12, bias=False)
        self.tied = nn.Linear(12, 12)
        self.again = nn.Linear(12, 12)
        self.again.weight = self.tied.weight
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.mixed(self.norm(self.stem(x)).relu()).mean((2, 3))
        return self.head(self.again(self.tied(self.hidden(x)).relu()))


INPUTS = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def begun(**settings: Any) -> tuple[Any, nn.Module, dict[str, Any], Tensor]:
    torch.manual_seed(0)
    model = Net().eval()
    before = model(INPUTS)
    transfer = make("lora", **settings)
    transfer.apply(model)
    changed = transfer.change(model, border(0, INPUTS))
    return transfer, changed.model, changed, before


def test_it_begins_as_the_model_was_and_trains_the_additions_and_the_head() -> None:
    _, model, changed, before = begun(rank=8)
    assert torch.equal(model(INPUTS), before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.weight", "head.bias", *(f"{n}.lora_{x}" for n in ("stem", "hidden") for x in "ab")}
    assert changed.record["ranks"] == {"stem": 6, "hidden": 6}
    assert model.stem.lora_a.shape == (6, 1, 3, 3)
    notes = "\n".join(changed.notes)
    assert "groups: mixed" in notes
    assert "not called: unused" in notes
    assert "share their weight: tied, again" in notes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_it_computes_the_same_under_the_first_names(dtype: torch.dtype) -> None:
    names = {name: parameter.shape for name, parameter in Net().state_dict().items()}
    transfer, model, _, before = begun(rank=3, alpha=6.0)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter)
    adapted = model(INPUTS)
    assert not torch.allclose(adapted, before, atol=1e-2)
    model.to(dtype)
    changed = transfer.change(model, border(10, INPUTS.to(dtype), steps=10))
    assert {name: tensor.shape for name, tensor in changed.model.state_dict().items()} == names
    assert type(changed.model.stem) is nn.Conv2d
    assert torch.allclose(
        changed.model(INPUTS.to(dtype)).float(), adapted, rtol=1e-3, atol=1e-4 if dtype == torch.float32 else 0.2
    )


def test_replay_makes_the_same_names_shapes_and_gradients() -> None:
    transfer, model, changed, _ = begun(rank=2)
    other = transfer.replay(Net(), changed.record)
    facts = [{n: (p.shape, p.requires_grad) for n, p in m.named_parameters()} for m in (model, other)]
    assert facts[0] == facts[1]
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(INPUTS), model(INPUTS))
    last = transfer.change(model, border(10, INPUTS, steps=10))
    assert transfer.replay(other, last.record).state_dict().keys() == last.model.state_dict().keys()


def test_what_is_drawn_follows_from_the_seed_alone() -> None:
    _, one, _, _ = begun(rank=2)
    torch.manual_seed(5)
    same, other = Net().eval(), Net().eval()
    make("lora", rank=2).change(same, border(0, INPUTS))
    make("lora", rank=2).change(other, border(0, INPUTS, seed=1))
    assert torch.equal(one.stem.lora_a, same.stem.lora_a)
    assert not torch.equal(one.stem.lora_a, other.stem.lora_a)


def test_frozen_statistics_stay_and_rates_follow_depth() -> None:
    transfer, model, _, _ = begun(rank=2, layer_decay=0.5, head_rate=3.0)
    assert transfer.frozen_modules(model) == [model.norm]
    rates = transfer.rates(model)
    assert rates["head.weight"] == 3.0
    assert rates["stem.lora_a"] < rates["hidden.lora_b"] < 1
    assert rates.keys() == {n for n, p in model.named_parameters() if p.requires_grad}


def test_dropout_is_of_the_addition_and_of_training() -> None:
    _, model, _, before = begun(rank=2, dropout=0.5)
    assert torch.equal(model(INPUTS), before)
    nn.init.ones_(model.hidden.lora_b)
    model.hidden.train()
    assert not torch.equal(model(INPUTS), model(INPUTS))


@pytest.mark.parametrize(
    ("settings", "where", "fix"),
    [
        ({"layers": ["stm"]}, "transfer.layers=stm", "stem"),
        ({"layers": ["mixed", "tied"]}, "transfer.layers=[mixed,tied]", "try transfer=finetune"),
        ({"layers": ["head"]}, "transfer.layers=[head]", "try transfer=finetune"),
        ({"head": "tied"}, "transfer.head=tied", "transfer.head=null"),
        ({"head": "heed"}, "transfer.head=heed", "transfer.head=head"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], where: str, fix: str) -> None:
    with pytest.raises(ConfigError) as raised:
        begun(**settings)
    (problem,) = raised.value.problems
    assert problem.where == where
    assert fix in problem.fix
