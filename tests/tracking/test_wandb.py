import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accel_cli.config.schema.tracking import WandB as Config

pytest.importorskip("wandb", reason="the wandb extra is not installed")
from wandb.proto import wandb_internal_pb2

from accel_cli.tracking.wandb import WandB

CONFIG = Config(option="wandb", mode="offline", project="digits")
PLACE = {"epoch": 0.5, "samples": 640, "seconds": 1.5}
BLOCK, HEADER = 32768, 7


def written(folder: Path) -> Iterator[Any]:
    """The records of an offline file: LevelDB's log of protocol buffers behind seven bytes."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_values_settings_and_headline_come_back(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: {option: mlp, width: 256}\ntrain: {epochs: 3}\n")
    tracker = WandB(CONFIG, tmp_path)
    for step in (10, 20, 10):  # back, as after a rollback
        tracker.log({"kind": "train", "step": step, **PLACE, "loss": 1 / step, "note": "words"})
    tracker.log({"kind": "evaluation", "step": 20, **PLACE, "validation_accuracy": 0.75})
    (tmp_path / "summary.json").write_text(json.dumps({"metric": {"best": 0.8, "value": None}, "train_seconds": 2.5}))
    tracker.close()

    found = list(written(tmp_path))
    settings = values(next(one.run for one in found if one.WhichOneof("record_type") == "run").config.update)
    assert {"model": "mlp", "model.width": "256", "train.epochs": "3"}.items() <= settings.items()
    history = [values(one.history.item) for one in found if one.WhichOneof("record_type") == "history"]
    assert [(row["step"], row["train/loss"]) for row in history if "train/loss" in row] == [
        (10, 0.1), (20, 0.05), (10, 0.1),
    ]  # fmt: skip
    assert history[-1]["validation/accuracy"] == 0.75
    assert history[-1]["samples"] == 640
    assert "train/note" not in history[0]
    summary: dict[str, Any] = {}
    for one in found:
        if one.WhichOneof("record_type") == "summary":
            summary |= values(one.summary.update)
    assert summary["summary/metric_best"] == 0.8
    assert summary["summary/train_seconds"] == 2.5
