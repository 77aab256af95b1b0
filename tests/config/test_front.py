"""Bad commands through the real front: exit 2, a message, and nothing started."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_typos import LETTERS

from accel_cli.config.names import Names

DRIVER = """
import contextlib, io, json, sys
started = []
sys.addaudithook(lambda name, arguments: started.append(name) if name in STARTING else None)
STARTING = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "pty.spawn"}
from accel_cli.cli.main import main
rows = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["check", *words])
    rows.append([code, out.getvalue(), err.getvalue()])
print(json.dumps({"rows": rows, "started": started, "torch": "torch" in sys.modules}))
"""


def bad_commands(count: int) -> list[list[str]]:
    """Commands of one to three words of which the first cannot be right."""
    draw, names = random.Random(0), Names()
    junk = [
        "nan",
        "",
        "[1",
        "{",
        "1e999",
        "'",
        "???x",
        "${nope}",
        "${train.seed",
        "a=b",
        "-",
        "{a:1}",
        "\u00e4",
        "x" * 300,
    ]

    def typo(word: str) -> str:
        return word + "".join(draw.choices(LETTERS, k=3))

    kinds = [
        lambda: f"{typo(draw.choice(names.tops))}=1",
        lambda: f"{draw.choice(list(names.options))}={typo('x')}",
        lambda: f"{typo(draw.choice(list(names.keys)))}=1",
        lambda: f"train.global_batch={draw.choice(junk)}",
        lambda: f"{draw.choice(['optimizer.learning_rate', 'train.steps'])}=-{draw.randint(1, 99)}",
        lambda: f"hydra.{draw.choice(['run.dir', 'job.name', 'sweep'])}=x",
        lambda: draw.choice(["train", "model", "x" * 50, "~model", "~train.seed", "train.seed=1,2", "--sed=1", "-x"]),
    ]
    fine = ["train.seed=1", "precision=fp16", "optimizer=sgd", "+strategy=ddp"]
    return [[kinds[n % len(kinds)](), *draw.sample(fine, draw.randint(0, 2))] for n in range(count)]


def test_a_hundred_bad_commands(tmp_path: Path) -> None:
    commands = bad_commands(100)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["started"] == []
    assert not found["torch"]
    assert list(tmp_path.iterdir()) == []
    for command, (code, out, err) in zip(commands, found["rows"], strict=True):
        assert code == 2, (command, err)
        assert out == "", command
        assert err.startswith("accel: "), command
        assert "problem" in err.splitlines()[0], command
        assert "Traceback" not in err
        assert "add a +" not in err


@pytest.mark.parametrize(("words", "code"), [
    (["precison=fp16"], 2),
    (["strategy=ddp", "launch.processes=3", "train.seed=x"], 2),
    (["train.seed=1,2"], 2),
    (["model._target_=os.system"], 8),
    (["model=custom", "model.factory=os:system"], 8),
])  # fmt: skip
def test_a_refused_train_leaves_nothing(words: list[str], code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "accel_cli", "train", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "ACCEL_TEST_MARK": str(tmp_path)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("accel: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    if Path("/proc").is_dir():
        deadline = time.monotonic() + 2
        while left_behind(str(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left_behind(str(tmp_path)) == []


def left_behind(mark: str) -> list[int]:
    """Living processes that were started with ``mark`` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes() and " Z " not in (folder / "stat").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
