"""model=transformers: fresh by type, or from a local folder of safetensors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from accel_cli.errors import ConfigError, SecurityError

pytest.importorskip("transformers", reason="the extra transformers is not installed")

GPT2 = {"n_layer": 2, "n_embd": 16, "n_head": 2}
BERT = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
DISTILBERT = {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 32}
LLAMA = {**BERT, "num_key_value_heads": 2}
EVERY = [
    ("gpt2", "text", GPT2),
    ("bert", "text", BERT),
    ("llama", "text", LLAMA),
    ("gpt2", "reviews", GPT2),
    ("bert", "reviews", BERT),
    ("roberta", "reviews", BERT),
    ("llama", "reviews", LLAMA),
    ("distilbert", "reviews", DISTILBERT),
]


@pytest.mark.parametrize(("architecture", "kind", "args"), EVERY)
def test_output_fits_the_data(models, data, architecture, kind, args):
    description = getattr(data, kind)
    model = models.build("transformers", description, architecture=architecture, args=args)
    output = model(data.inputs(description))
    assert isinstance(output, torch.Tensor)
    assert output.shape == ((4, 16, 65) if kind == "text" else (4, 2))


@pytest.mark.parametrize(("architecture", "kind", "args"), EVERY)
def test_builds_without_storage(models, data, architecture, kind, args):
    with torch.device("meta"):
        model = models.build("transformers", getattr(data, kind), architecture=architecture, args=args)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "args"), [("gpt2", GPT2), ("bert", BERT), ("llama", LLAMA)])
def test_next_token_models_see_no_later_token(models, data, architecture, args):
    model = models.build("transformers", data.text, architecture=architecture, args=args).eval()
    tokens = data.inputs(data.text)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 65
    assert torch.allclose(model(tokens)[:, :9], model(changed)[:, :9], atol=1e-6)


def test_overfits_one_batch(models, data):
    model = models.build("transformers", data.reviews, architecture="gpt2", args=GPT2)
    assert models.overfit(model, data.inputs(data.reviews, 8), torch.arange(8) % 2, steps=40, rate=0.01) < 0.1


def test_sizes_follow_the_data_unless_args_say_otherwise(models, data):
    model = models.build("transformers", data.text, architecture="gpt2", args={**GPT2, "n_positions": 40})
    assert model.config.n_positions == 40
    assert model.config.vocab_size == 65
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == (65 + 40) * 16 + 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16


@pytest.mark.parametrize(
    ("kind", "overrides", "where", "expected"),
    [
        ("text", {"architecture": "gpt3"}, "model.architecture=gpt3", "did you mean model.architecture=gpt2"),
        ("text", {"architecture": "openai/gpt2"}, "model.architecture=openai/gpt2", "nothing is downloaded"),
        ("text", {"args": {"n_layers": 2}}, "model.args.n_layers", "did you mean model.args.n_layer"),
        ("text", {"args": {"n_layer": "two"}}, "model.args={'n_layer': 'two'}", "n_layer"),
        ("text", {"architecture": "distilbert"}, "model.architecture=distilbert", "distilbert"),
        ("colour", {}, "model=transformers", "try model=cnn"),
    ],
)
def test_a_wrong_choice_says_what_to_type(models, data, kind, overrides, where, expected):
    with pytest.raises(ConfigError) as raised:
        models.build("transformers", getattr(data, kind), **overrides)
    (problem,) = raised.value.problems
    assert problem.where == where
    assert expected in f"{problem.why} {problem.fix}"


@pytest.fixture
def folder(models, data, tmp_path) -> Path:
    """A trained classifier of two classes, as save_pretrained leaves it."""
    models.build("transformers", data.reviews, architecture="gpt2", args=GPT2).save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_a_folder_gives_its_weights_and_a_fresh_head_where_sizes_differ(models, data, folder):
    first = models.build("transformers", data.reviews, architecture=str(folder))
    again = models.build("transformers", data.reviews, architecture=str(folder))
    assert first.new_parameters == ()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    text = models.build("transformers", data.text, architecture=str(folder))
    assert torch.equal(text.transformer.h[1].ln_1.weight, first.transformer.h[1].ln_1.weight)
    assert torch.equal(text.transformer.wte.weight, first.transformer.wte.weight)
    more = type(data.reviews)(**{**data.reviews.to_dict(), "classes": 5})
    assert models.build("transformers", more, architecture=str(folder)).new_parameters == ("score.weight",)
    with torch.device("meta"):
        assert models.build("transformers", data.reviews, architecture=str(folder)).score.weight.is_meta


class Canary:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_folder_of_pickles_is_refused_unread(models, data, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    with pytest.raises(SecurityError, match="is a pickle"):
        models.build("transformers", data.reviews, architecture=str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_folder_runs_no_code_of_its_own(models, data, folder, tmp_path):
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass Mine: pass\n"
    (folder / "mine.py").write_text(code)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError):
        models.build("transformers", data.text, architecture=str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_folder_must_hold_the_datas_tokens(models, data, folder):
    longer = type(data.text)(**{**data.text.to_dict(), "input_shape": (64,)})
    richer = type(data.text)(**{**data.text.to_dict(), "vocabulary": 300})
    for description, why in ((longer, "reads 16 tokens at most"), (richer, "knows 65 tokens")):
        with pytest.raises(ConfigError, match=why):
            models.build("transformers", description, architecture=str(folder))
