"""accel list: everything that exists, what it means, and whether this machine can use it."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accel_cli.cli.availability import EVERYTHING, Judge
from accel_cli.cli.main import main
from accel_cli.config.machine import GPU, Machine
from accel_cli.config.names import Names
from accel_cli.config.rule_table import RULES

BARE = Machine(cores=2, memory_bytes=8 << 30)
SLOW_GPU = Machine(cores=8, memory_bytes=8 << 30, gpus=(GPU("old", 8 << 30, (7, 0)),) * 2)


@pytest.fixture(scope="module")
def bare() -> Judge:
    return Judge.of(machine=BARE)


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["list", *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    return found


def test_every_option_has_a_meaning_and_every_group_one_default(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "options")
    assert {(row["group"], row["option"]) for row in found} == {
        (group, option) for group, options in Names().options.items() for option in options
    }
    assert all(len(row["meaning"]) > 8 for row in found)
    assert {row["group"]: row["option"] for row in found if row["default"]} == Names().defaults
    assert all(row["why"] and row["fix"] for row in found if not row["usable"])


def test_default_options_can_be_used_anywhere(bare: Judge) -> None:
    for group, option in bare.names.defaults.items():
        assert bare.availability(group, option).usable, f"{group}={option}"


def test_a_machine_with_everything_lacks_no_device() -> None:
    judge = Judge.of(machine=EVERYTHING)
    for option in ("cpu", "cuda", "xpu", "mps", "auto"):
        assert judge.availability("hardware", option).usable, option


@pytest.mark.parametrize(("option", "word"), [("cuda", "NVIDIA"), ("xpu", "Intel"), ("mps", "Apple")])
def test_an_absent_device_is_said_with_what_to_type(bare: Judge, option: str, word: str) -> None:
    verdict = bare.availability("hardware", option)
    assert not verdict.usable
    assert word in verdict.why
    assert "hardware=" in verdict.fix


def test_a_form_to_export_to_is_no_device(bare: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"onnx", "torch_export", "safetensors", "executorch"} <= {row["option"] for row in rows(capsys, "export")}
    assert main(["check", "hardware=executorch"]) == 2
    assert "try export=executorch" in capsys.readouterr().err


def test_what_only_other_options_forbid_is_not_held_against_the_machine(bare: Judge) -> None:
    assert bare.availability("model", "gpt").usable  # the default data has no tokens, but others have
    assert bare.availability("data", "text").usable  # its path is the user's to give


def test_what_is_slow_here_can_be_used_and_says_so(bare: Judge) -> None:
    verdict = bare.availability("precision", "bf16")
    assert verdict.usable
    assert "slower than fp32" in verdict.why
    assert not Judge.of(machine=SLOW_GPU).availability("precision", "fp16").why


def test_an_absent_package_names_the_extra(bare: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel_cli.cli.availability.has_package", lambda name: False)
    verdict = bare.availability("model", "timm")
    assert (verdict.usable, verdict.fix) == (False, "pip install 'accel-cli[timm]'")
    assert bare.availability("export", "onnx").fix == "pip install 'accel-cli[onnx]'"
    assert bare.availability("model", "mlp").usable


def test_compile_needs_a_compiler(bare: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    verdict = bare.availability("compile", "full")
    assert not verdict.usable
    assert "C++ compiler" in verdict.why


def test_every_rule_reads_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "rules")
    assert [row["id"] for row in found] == [rule.id for rule in RULES]
    for row in found:
        assert row["level"] in ("refuse", "warn", "adjust")
        assert row["text"]
        assert row["why"]
        assert "lambda" not in str(row)
        assert " object at " not in str(row)


def test_recipes_are_listed_with_what_they_lack_here(capsys: pytest.CaptureFixture[str]) -> None:
    found = {row["recipe"]: row for row in rows(capsys, "recipes")}
    assert found["ci_cpu"]["usable"]
    assert all(row["meaning"] for row in found.values())
    assert "data.root" in found["cifar10_resnet"]["why"]


def test_groups_and_sections_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    found = {row["group"]: row for row in rows(capsys)}
    assert found["strategy"]["default"] == "single"
    assert "ddp" in found["strategy"]["options"]
    assert "global_batch" in found["train"]["keys"]
    main(["list"])
    assert len(capsys.readouterr().out.splitlines()) == len(found)


def test_a_mistyped_group_is_exit_2_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "optimzer"]) == 2
    assert "did you mean optimizer ?" in capsys.readouterr().err


def test_options_of_ones_own_stand_beside_accels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/big.yaml").write_text("# The cluster's nodes.\noption: cuda\n")
    (row,) = [row for row in rows(capsys, "hardware", "--config-dir", str(tmp_path)) if row["option"] == "big"]
    assert row["meaning"] == "The cluster's nodes."
    assert Judge.of([tmp_path], BARE).availability("hardware", "big").why.startswith("no NVIDIA")


def test_what_is_too_long_for_a_terminal_stands_below_in_whole_words() -> None:
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "accel_cli", "list"]
    with subprocess.Popen(line, stdout=theirs, env={**os.environ, "COLUMNS": "90", "NO_COLOR": "1"}) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the end of a terminal, on Linux
            while found := os.read(ours, 1 << 16):
                seen += found
    os.close(ours)
    assert process.returncode == 0
    text = seen.decode().splitlines()
    at = text.index(next(line for line in text if line.startswith("      options: adadelta")))
    assert text[at - 1].startswith("optimizer")
    assert all(len(line) <= 90 for line in text if line.startswith("   "))
