"""The same from Python: train returns the summary, load the model that came of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command import NETS

import accel_cli
from accel_cli.config.factory import _granted
from accel_cli.data.digits import Digits
from accel_cli.engine.summary import EMPTY
from accel_cli.errors import AccelError, ConfigError, SecurityError


def test_train_returns_the_summary_and_load_the_model(tmp_path: Path) -> None:
    found = accel_cli.train(["train.epochs=3", "train.ema=0.9", "evaluate.every=30"], run_dir=tmp_path / "run")
    assert set(found) - {"run"} == set(EMPTY)
    assert found["status"] == "completed"

    model = accel_cli.load(tmp_path / "run")
    config = __import__("accel_cli.config.run", fromlist=["read"]).read(tmp_path / "run" / "run.yaml").data
    test = Digits(config, 0).split("test")
    inputs, targets = test.batch(torch.arange(len(test)))
    right = sum(int(p) == int(t) for p, t in zip(model.predict(inputs), targets, strict=True))
    assert right / len(test) == pytest.approx(found["metric"]["value"], abs=1e-6)


def test_a_bad_word_raises_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean precision=fp16"):
        accel_cli.train(["precison=fp16"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_own_code_fails_as_an_accel_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    words = ["model=custom", "model.factory=nets:Net", "model.args={rank: 0, step: 2}"]
    with pytest.raises(SecurityError):
        accel_cli.train(words)
    with pytest.raises(AccelError, match="my own bug") as caught:
        accel_cli.train(words, plugins=["nets.py"])
    assert caught.value.exit_code == 3
    assert "nets.py" not in _granted
