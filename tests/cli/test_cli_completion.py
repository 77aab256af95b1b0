"""accel completion: the words, and the scripts in the shells that they are for."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accel_cli.cli.completion_words import complete
from accel_cli.cli.yaml_keys import keys
from accel_cli.config import tree
from accel_cli.config.names import Names
from accel_cli.config.parts import GROUPS, SEVERAL


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, and an ``accel`` on PATH that is this checkout's."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/sweep/000"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.yaml").write_text("format_version: 1\n")
    program = tmp_path / "bin/accel"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m accel_cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tra", ["train"]),
        ("train strat", ["strategy="]),
        ("train strategy=dd", ["strategy=ddp"]),
        ("train +strat", ["+strategy="]),
        ("train +strategy=s", ["+strategy=single"]),
        ("train ~aug", ["~augment"]),
        ("train ~optimizer.l", ["~optimizer.learning_rate"]),
        ("train optimizer.l", ["optimizer.learning_rate="]),
        ("train ++optimizer.l", ["++optimizer.learning_rate="]),
        ("train optimizer=sgd optimizer.mo", ["optimizer.momentum="]),
        ("train optimizer.nes", ["optimizer.nesterov="]),  # of another option, since the chosen one has no such key
        ("train train.global", ["train.global_batch="]),
        ("train train.determinism=", ["train.determinism=default", "train.determinism=exact"]),
        ("train profile.enabled=", ["profile.enabled=true", "profile.enabled=false"]),
        ("train augment=basic augment.transforms.basic.fl", ["augment.transforms.basic.flip="]),
        ("train +rec", ["+recipe="]),
        ("train +recipe=ci_", ["+recipe=ci_cpu"]),
        ("train -m strategy=single,dd", ["strategy=single,ddp"]),
        ("train augment=[b", ["augment=[basic"]),
        ("train --dry", ["--dry-run"]),
        ("train --run-dir x strat", ["strategy="]),
        ("train strategy=ddp strat", []),
        ("check train.see", ["train.seed="]),
        ("show --explain strat", ["strategy"]),
        ("show --explain optimizer.weight", ["optimizer.weight_decay"]),
        ("list rul", ["rules"]),
        ("list precis", ["precision"]),
        ("runs cl", ["clean"]),
        ("evaluate x --split v", ["validation"]),
        ("completion z", ["zsh"]),
        ("resume runs/f", ["runs/first"]),
        ("resume runs/sweep/", ["runs/sweep/000"]),
        ("report runs/first runs/s", ["runs/sweep/"]),
        ("train --run runs/f", ["runs/first"]),
        ("nonsense strat", []),
        ("train model.factory=", []),
    ],
)
def test_words(home: Path, typed: str, expected: list[str]) -> None:
    assert list(complete(typed.split(" "))) == expected


def test_an_empty_word_offers_everything(home: Path) -> None:
    assert {f"{group}=" for group in GROUPS} | {"train.", "+recipe="} <= set(complete(["train", ""]))
    assert {"train", "doctor", "runs", "completion"} <= set(complete([""]))
    assert "runs/first" in complete(["resume", ""])
    assert set(Names().options["optimizer"]) == {
        word.removeprefix("optimizer=") for word in complete(["train", "optimizer="])
    }


def test_options_of_ones_own(home: Path) -> None:
    (home / "conf/optimizer").mkdir(parents=True)
    (home / "conf/optimizer/mine.yaml").write_text("# My own.\noption: sgd\nmomentum: 0.8\n")
    before = ["train", "--config-dir", "conf"]
    assert complete([*before, "optimizer=mi"]) == {"optimizer=mine": "My own."}
    assert "optimizer.nesterov=" in complete([*before, "optimizer=mine", "optimizer."])


def test_the_lines_of_a_yaml_tell_all_its_keys() -> None:
    names = Names()
    read: set[str] = set()
    for group, options in names.options.items():
        for option, path in options.items():
            if not (group in SEVERAL and option == "none"):
                read |= set(keys(path, group))
    read |= {key for key in keys(tree.shipped("configs") / "train.yaml") if key.partition(".")[0] in SEVERAL}
    known = {key for key in names.keys if key.partition(".")[0] in GROUPS}
    assert read == known


def test_garbage_is_answered_with_silence(home: Path) -> None:
    command = [sys.executable, "-m", "accel_cli", "completion", "words", "--"]
    for words in (
        ["train", "=", "==", "+"],
        ["train", "\udcff", "~"],
        ["--", "--", "-"],
        ["train", "a.b.c=", "x" * 5000],
    ):
        ended = subprocess.run([*command, *words], capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")


BASH = """
source <(accel completion bash)
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
ask() {
    COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=($2)
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _accel
    echo "${COMPREPLY[*]}"
}
ask "accel train strat" "accel train strat"
ask "accel train strategy=dd" "accel train strategy = dd"
ask "" "accel train strategy = dd"
ask "accel train optimizer.l" "accel train optimizer.l"
ask "accel resume runs/f" "accel resume runs/f"
complete -p accel
"""


def test_bash_gets_what_readline_replaces(home: Path) -> None:
    ended = subprocess.run(["bash", "--norc", "-c", BASH], capture_output=True, text=True, timeout=60)
    lines = ended.stdout.splitlines()
    assert lines[:5] == ["strategy=", "ddp", "ddp", "optimizer.learning_rate=", "runs/first"], ended.stderr
    assert lines[5].endswith("-F _accel accel")


def press(shell: list[str], source: str, typed: list[tuple[str, str]]) -> None:
    """Type into an interactive shell, tab included, and wait for what has to appear."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(PS1="$ ", TERM="dumb", HISTFILE="")
        os.execvp(shell[0], shell)
    try:
        for text, wanted in [(f"{source}; echo re''ady\n", "ready"), *typed]:
            os.write(terminal, text.encode())
            seen, end = "", time.monotonic() + 20
            while wanted not in seen and time.monotonic() < end:
                if select.select([terminal], [], [], 0.1)[0]:
                    seen += os.read(terminal, 65536).decode(errors="replace").replace("\b", "")
            assert wanted in seen, (text, seen)
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


TYPED = [("accel train strat\t", "strategy="), ("dd\t", "ddp "), ("optimizer.l\t", "optimizer.learning_rate=")]


def test_bash_with_the_tab_key(home: Path) -> None:
    press(["bash", "--norc", "--noprofile", "-i"], "source <(accel completion bash)", TYPED)


def test_zsh_with_the_tab_key(home: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    press(["zsh", "-f", "-i"], "source <(accel completion zsh)", TYPED)


def test_fish(home: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    asked = ["accel train strat", "accel train strategy=dd", "accel train +recipe=ci_", "accel resume runs/f"]
    script = "accel completion fish | source; " + "; ".join(f'complete -C "{line}"' for line in asked)
    ended = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, timeout=60)
    found = [line.partition("\t")[0] for line in ended.stdout.splitlines()]
    assert found == ["strategy=", "strategy=ddp", "+recipe=ci_cpu", "runs/first"], ended.stderr
