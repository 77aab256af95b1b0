import json
import logging
from pathlib import Path

import pytest

from accel_cli.config.schema.tracking import MLflow as Config

pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
from mlflow.tracking import MlflowClient

from accel_cli.tracking.mlflow import MLflow

CONFIG = Config(option="mlflow", uri=None, experiment="digits")
PLACE = {"epoch": 0.5, "samples": 640, "seconds": 1.5}


def records(tracker: MLflow, *steps: int) -> None:
    for step in steps:
        tracker.log({"kind": "train", "step": step, **PLACE, "loss": 1 / step, "note": "words"})
        tracker.log({"kind": "evaluation", "step": step, **PLACE, "validation_accuracy": 0.75, "loss": float("nan")})


def test_values_settings_and_headline_come_back(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: {option: mlp, width: 256}\ntrain: {epochs: 3}\n")
    tracker = MLflow(CONFIG, tmp_path)
    records(tracker, 10, 20)
    (tmp_path / "summary.json").write_text(json.dumps({"metric": {"best": 0.8, "value": None}, "train_seconds": 2.5}))
    tracker.close()

    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model": "mlp", "model.width": "256", "train.epochs": "3"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((one.step, one.value) for one in history) == [(10, 0.1), (20, 0.05)]
    assert run.data.metrics["validation/accuracy"] == 0.75
    assert {"summary/metric_best": 0.8, "summary/train_seconds": 2.5}.items() <= run.data.metrics.items()
    assert "validation/loss" not in run.data.metrics


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path) -> None:
    for steps in ((1, 2), (3,)):
        tracker = MLflow(CONFIG, tmp_path)
        records(tracker, *steps)
        tracker.close()
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert sorted(one.step for one in client.get_metric_history(run.info.run_id, "train/loss")) == [1, 2, 3]
    assert run.info.status == "KILLED"


def test_a_sink_that_cannot_open_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow").write_text("a file stands where the folder would")
    with caplog.at_level(logging.WARNING, logger="accel_cli"):
        tracker = MLflow(CONFIG, tmp_path)
        records(tracker, 1, 2)
        tracker.close()
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1
