import logging
from pathlib import Path

import pytest

from accel_cli.config.schema.tracking import TensorBoard as Config
from accel_cli.config.schema.tracking import Tracker as NoConfig
from accel_cli.tracking.base import Tracker

pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from accel_cli.tracking.tensorboard import TensorBoard

CONFIG = Config(option="tensorboard", flush_seconds=1.0)
PLACE = {"epoch": 0.5, "samples": 640, "seconds": 1.5}


def test_values_come_back(tmp_path: Path) -> None:
    tracker = TensorBoard(CONFIG, tmp_path)
    for step in (10, 20):
        train = {"kind": "train", "step": step, **PLACE, "loss": 1 / step, "learning_rate": 0.5, "note": "words"}
        tracker.log(train)
    tracker.log({"kind": "evaluation", "step": 20, **PLACE, "validation_accuracy": 0.75, "loss": 0.25})
    tracker.log({"kind": "evaluation", "step": 20, **PLACE, "test_accuracy": 0.625, "validation_loss": float("nan")})
    tracker.close()

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss", "train/learning_rate", "validation/accuracy", "validation/loss", "test/accuracy",
    }  # fmt: skip
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [
        (10, pytest.approx(0.1)),
        (20, pytest.approx(0.05)),
    ]
    assert events.Scalars("validation/accuracy")[0].value == 0.75
    assert events.Scalars("test/accuracy")[0].value == 0.625


def test_a_sink_that_cannot_open_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tensorboard").write_text("a file stands where the folder would")
    with caplog.at_level(logging.WARNING):
        tracker = TensorBoard(CONFIG, tmp_path)
        for step in range(3):
            tracker.log({"kind": "train", "step": step, "loss": 1.0})
        tracker.close()
    assert len(caplog.records) == 1
    assert "training goes on" in caplog.text


def test_a_record_that_it_cannot_take_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = TensorBoard(CONFIG, tmp_path)
    with caplog.at_level(logging.WARNING):
        tracker.log({"kind": "train", "loss": 1.0})
        tracker.log({"kind": "train", "loss": 1.0})
        tracker.close()
    assert len(caplog.records) == 1


def test_the_harmless_tracker_leaves_no_trace(tmp_path: Path) -> None:
    tracker = Tracker(NoConfig(option="none"), tmp_path)
    tracker.log({"kind": "train", "step": 1, "loss": 1.0})
    tracker.close()
    assert list(tmp_path.iterdir()) == []
