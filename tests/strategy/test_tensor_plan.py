"""Plans of tensor parallelism: what is found in a model, what is left alone, and why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import Gated, Leaking, Scaled, Small, Transformer
from torch import nn

from accel_cli.errors import ConfigError
from accel_cli.model.gpt import GPT
from accel_cli.model.vit import ViT
from accel_cli.strategy.tensor_plan import Plan, make
from accel_cli.strategy.tensor_trace import trace

TOKENS = torch.arange(16).view(2, 8) % 30
VECTORS = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plan(model: nn.Module, inputs: torch.Tensor, parts: int = 2, wanted: Any = "auto") -> Plan:
    def forward(model: nn.Module) -> Any:
        return model(inputs)

    return make(model, trace(model, forward), wanted, parts, forward)


def pairs(found: Plan) -> list[str]:
    return list(dict.fromkeys(str(p) for p in found.pairs))


def gpt(heads: int = 2) -> GPT:
    return GPT(vocabulary=30, length=8, width=16, depth=2, heads=heads, dropout=0.1, weight_tying=False)


ATTENTION = "blocks.*.attention.query, blocks.*.attention.key, blocks.*.attention.value > blocks.*.attention.project"
PERCEPTRON = "blocks.*.expand > blocks.*.contract"


def test_pairs_of_a_model_that_knows_nothing() -> None:
    found = plan(Transformer(), TOKENS)
    assert pairs(found) == [
        "layers.*.gate, layers.*.up > layers.*.down",
        "layers.*.q, layers.*.k, layers.*.v > layers.*.o",
    ]
    assert len(found.pairs) == 4
    assert not found.left
    attention = found.pairs[-1]
    assert attention.summed == ("layers.1.per_head.bias", "layers.1.per_head.weight")


def test_attention_with_a_fixed_number_of_heads_is_left_alone() -> None:
    found = plan(Transformer(static=True), TOKENS)
    assert pairs(found) == ["layers.*.gate, layers.*.up > layers.*.down"]
    assert "is not its part of the whole" in found.left["layers.*.q, layers.*.k, layers.*.v > layers.*.o"]


def test_sizes_that_do_not_divide_are_left_alone() -> None:
    found = plan(Transformer(hidden=39), TOKENS)
    assert pairs(found) == ["layers.*.q, layers.*.k, layers.*.v > layers.*.o"]
    assert "do not divide by 2" in found.left["layers.*.gate, layers.*.up > layers.*.down"]
    assert pairs(plan(Transformer(), TOKENS, 3)) == []


@pytest.mark.parametrize("found", ["model", "finder"])
def test_blocks_of_gpt_and_vit(found: str) -> None:
    for model, inputs in (
        (gpt(), TOKENS),
        (ViT((1, 8, 8), patch=2, width=16, depth=2, heads=2, dropout=0.1, count=10), IMAGES),
    ):
        if found == "finder":
            model.tensor_plan = {}
        made = plan(model, inputs)
        assert made.source == found
        assert sorted(pairs(made)) == [ATTENTION, PERCEPTRON]
        assert not made.left


def test_fewer_heads_than_ranks() -> None:
    found = plan(gpt(heads=2), TOKENS, parts=4)
    assert pairs(found) == [PERCEPTRON]
    assert "unflatten" in found.left[ATTENTION]


def test_a_perceptron_of_plain_layers() -> None:
    layers = [nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 12), nn.ReLU(inplace=True), nn.Linear(12, 10)]
    assert pairs(plan(nn.Sequential(*layers), VECTORS)) == ["0 > 2"]
    (only,) = plan(nn.Sequential(*layers), VECTORS).pairs
    assert only.layers == ("0", "2")
    (only,) = plan(nn.Sequential(*layers), VECTORS, 4, {"2": "colwise", "4": "rowwise"}).pairs
    assert only.layers == ("2", "4")


def test_convolutions_keep_the_norms_of_their_channels() -> None:
    found = plan(Small(), IMAGES)
    (only,) = found.pairs
    assert (only.columns, only.rows, only.norms) == (("first",), ("second",), ("norm",))


def test_a_flattened_convolution_goes_on_in_a_linear_layer() -> None:
    layers = [nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)]
    (only,) = plan(nn.Sequential(*layers), IMAGES).pairs
    assert (only.layers, only.norms) == (("0", "4"), ("1",))
    assert "4 groups of 1 do not divide by 8" in str(plan(nn.Sequential(*layers), IMAGES, 8).left)


def test_what_a_rank_would_get_wrong_is_no_pair() -> None:
    assert plan(Gated(), VECTORS).pairs == []
    assert plan(Leaking(detached=False), VECTORS).pairs == []
    assert plan(Leaking(detached=True), VECTORS).pairs == [], "seen in the numbers: autograd does not know of it"
    assert plan(nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 4)), VECTORS).pairs == []
    assert plan(nn.Sequential(nn.Linear(16, 8), nn.Softmax(-1), nn.Linear(8, 4)), VECTORS).pairs == []
    shared = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    shared[2].weight = shared[0].weight
    assert "shares its weight" in str(plan(shared, VECTORS).left)


def test_a_parameter_between_is_summed() -> None:
    (only,) = plan(Scaled(), VECTORS).pairs
    assert only.summed == ("scale",)


def test_frozen_layers_are_cut_too() -> None:
    model = Transformer()
    model.requires_grad_(False)
    assert len(plan(model, TOKENS).pairs) == 4


def test_the_model_stays_as_it_was() -> None:
    model = Small().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draws = torch.get_rng_state()
    plan(model, IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert (model.training, model.norm.training, model.first.training) == (True, False, True)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_plan_from_the_configuration() -> None:
    found = plan(gpt(), TOKENS, 2, {"blocks.*.expand": "colwise", "blocks.1.contract": "rowwise"})
    assert [p.layers for p in found.pairs] == [("blocks.1.expand", "blocks.1.contract")]
    assert found.left == {"blocks.*.expand": "its output goes to blocks.0.contract as well"}
    found = plan(gpt(), TOKENS, 2, {"head": "colwise_gather_output"})
    assert found.gathered == ["head"]
    found = plan(gpt(), TOKENS, 2, {"blocks.*.attention.query": "colwise", "blocks.*.attention.project": "rowwise"})
    assert "needs blocks.0.attention.key to be cut too" in found.left["blocks.*.attention.project"]
    with pytest.raises(ConfigError) as raised:
        plan(gpt(), TOKENS, 2, {"blocks.*.expnd": "colwise"})
    assert "did you mean blocks.*.expand" in raised.value.problems[0].fix


transformers = pytest.mark.parametrize(
    ("kind", "args", "source", "expected"),
    [
        ("llama", {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2,
                   "intermediate_size": 32, "vocab_size": 66}, "model", 15),
        ("qwen3", {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2,
                   "intermediate_size": 32, "vocab_size": 65, "head_dim": 8}, "model", 14),
        ("gpt2", {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 65}, "finder", 4),
    ],
)  # fmt: skip


@transformers
def test_transformers_bring_their_own(kind: str, args: dict[str, int], source: str, expected: int) -> None:
    library = pytest.importorskip("transformers", reason="the extra transformers is not installed")
    model = library.AutoModelForCausalLM.from_config(library.CONFIG_MAPPING[kind](**args, use_cache=False))
    model.register_forward_hook(lambda module, inputs, output: output.logits)
    found = plan(model, TOKENS)
    assert (found.source, len(found.layers)) == (source, expected)
    if kind == "gpt2":
        assert list(found.left) == ["transformer.h.*.attn.c_attn > transformer.h.*.attn.c_proj"]
    if kind == "qwen3":
        assert found.pairs[0].summed == (
            "model.layers.0.self_attn.k_norm.weight",
            "model.layers.0.self_attn.q_norm.weight",
        )
        assert "65 outputs" in found.left["lm_head"]
