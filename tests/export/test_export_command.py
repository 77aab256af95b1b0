"""accel export and accel train export=..., as they are typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from accel_cli.cli.completion_words import complete
from accel_cli.cli.export import asked_for
from accel_cli.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[1] / "launch"))
from command import accel, run_folder

SMALL = ["model=mlp", "model.widths=[8]", "train.steps=4", "hardware=cpu", "hardware.threads=1"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was trained and exported to onnx."""
    folder = tmp_path_factory.mktemp("exported")
    ended = accel("train", *SMALL, "export=onnx", "export.opset=18", folder=folder)
    assert ended.returncode == 0, ended.stderr
    (folder / "stderr").write_text(ended.stderr)
    return folder


def test_train_exports_at_its_end_and_says_so(exported: Path) -> None:
    run = run_folder(exported)
    report = json.loads((run / "export/onnx/report.json").read_text())
    assert report["facts"]["opset"] == 18
    (line,) = [text for text in (exported / "stderr").read_text().splitlines() if text.startswith("  export ")]
    assert f"runs/{run.name}/export/onnx" in line
    assert "outputs differ by" in line


def test_later_in_another_form_as_json_and_as_a_table(exported: Path) -> None:
    run = str(run_folder(exported))
    ended = accel("export", run, "format=safetensors", "--json", folder=exported)
    report = json.loads(ended.stdout)
    assert (report["format"], report["splits"]["test"]["largest_difference"]) == ("safetensors", 0.0)
    again = accel("export", run, "--which", "best", folder=exported)  # the run's own format
    assert again.returncode == 0, again.stderr
    words = again.stdout
    assert "opset 18" in words
    for row in ("test accuracy", "size", "latency, batch 1", "latency, batch 32", "test outputs"):
        assert f"\n{row} " in words
    page = accel("report", run, folder=exported)
    assert page.returncode == 0
    text = (run_folder(exported) / "report.html").read_text()
    assert all(word in text for word in ("<h2>Export</h2>", "<strong>onnx</strong>", "<strong>safetensors</strong>"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["format=onnx", "model=cnn"], "an export changes nothing of the run"),
        (["format=onnx", "train.steps=3"], "an export changes nothing of the run"),
        (["format=onx"], "did you mean export=onnx"),
        (["format=onnx", "export.opset=3"], "must be at least 18"),
        (["format=onnx", "export.backend=portable"], "export.backend"),
        (["format=none"], "names no format"),
        (["format=onnx", "format=safetensors"], "chosen twice"),
    ],
)
def test_other_words_are_refused(exported: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        asked_for(run_folder(exported), words, [])
    assert any(said in f"{problem.where} {problem.why} {problem.fix}" for problem in raised.value.problems)


def test_an_absent_package_is_told_before_training(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    monkeypatch.setattr("accel_cli.config.rules.has_package", lambda name: name != "executorch")
    with pytest.raises(ConfigError, match=r"accel-cli\[executorch\]"):
        asked_for(run_folder(exported), ["format=executorch"], [])


def test_an_export_that_fails_leaves_a_whole_run(tmp_path: Path) -> None:
    own = Path(__file__).with_name("own_models.py")
    custom = ["model=custom", "model.factory=own_models:Branch", "--plugin", str(own)]
    ended = accel("train", *SMALL[2:], *custom, "export=torch_export", folder=tmp_path)
    assert ended.returncode == 2
    assert "Completed" in ended.stderr
    assert "aten.item" in ended.stderr
    assert json.loads((run_folder(tmp_path) / "summary.json").read_text())["status"] == "completed"
    checked = accel("check", "--deep", *custom, "export=torch_export", "hardware=cpu", folder=tmp_path)
    assert checked.returncode == 2
    assert "aten.item" in checked.stderr


def test_completion_knows_the_formats_and_their_keys() -> None:
    assert {"format=", "export."} <= set(complete(["export", "runs/x", ""]))
    assert set(complete(["export", "runs/x", "format=o"])) == {"format=onnx"}
    assert set(complete(["export", "runs/x", "format=onnx", "export."])) == {"export.opset="}
    assert complete(["export", "runs/x", "model="]) == {}
