"""A model, a data set and a task in a file outside the project: trained when named, refused when not."""

from __future__ import annotations

import json
from pathlib import Path

from command import accel, run_folder

OWN = '''
import torch
from torch import nn
from torch.utils.data import Dataset


class Points(Dataset):
    """Two clouds in the plane, as dicts of her own."""

    def __init__(self, split, size=256):
        generator = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
        self.labels = torch.arange(size) % 2
        self.points = torch.randn(size, 2, generator=generator) + 4 * self.labels.view(-1, 1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"point": self.points[index], "label": float(self.labels[index])}


def collate(samples):
    return {
        "points": torch.stack([s["point"] for s in samples]),
        "labels": torch.tensor([s["label"] for s in samples]),
    }


class Line(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, points):
        return self.layers(points).squeeze(1)


class Split:
    """A task that knows nothing of accel."""

    def loss(self, model, batch):
        return nn.functional.binary_cross_entropy_with_logits(model(batch["points"]), batch["labels"])

    def metrics(self, model, batch):
        right = (model(batch["points"]) > 0) == (batch["labels"] > 0.5)
        return {"accuracy": right.float().mean()}
'''
WORDS = [
    "train", "model=custom", "model.factory=own:Line", "data=custom", "data.factory=own:Points",
    "data.collate=own:collate", "task=custom", "task.factory=own:Split", "task.metric=accuracy", "task.mode=max",
    "optimizer.learning_rate=0.02", "train.epochs=4", "--json",
]  # fmt: skip


def test_own_code_trains_through_plugin(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.py").write_text(OWN)
    ended = accel(*WORDS, "--plugin", str(elsewhere / "own.py"), "+strategy=ddp", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["world_size"] == 2
    assert found["metric"]["name"] == "accuracy"
    assert found["metric"]["value"] > 0.95

    plugin = str(elsewhere / "own.py")
    evaluated = accel("evaluate", str(run_folder(tmp_path)), "--plugin", plugin, "--json", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["metrics"]["test_accuracy"] == found["metric"]["value"]


def test_without_plugin_it_is_refused_and_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN + "\nopen('canary', 'w')\n")
    ended = accel(*WORDS, folder=tmp_path)
    assert ended.returncode == 8
    for key in ("model.factory", "data.factory", "data.collate", "task.factory"):
        assert key in ended.stderr
    assert "--plugin own" in ended.stderr
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "runs").exists()


def test_her_own_accel_yaml_grants_and_a_recipe_cannot(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    sly = "plugins: [own]\ndefaults:\n  - override /model: custom\nmodel:\n  factory: own:Line\n"
    (tmp_path / "sly.yaml").write_text(sly)
    assert accel("check", "+recipe=sly.yaml", folder=tmp_path).returncode in (2, 8)
    (tmp_path / "accel.yaml").write_text("plugins: [own]\n")
    assert accel("check", *WORDS[1:-1], folder=tmp_path).returncode == 0
