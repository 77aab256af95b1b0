"""The same command line goes on with what it began; nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accel_cli.analysis.study import Study
from accel_cli.errors import ConfigError

WORDS = ["sweep", "model=mlp,cnn", "train.steps=3"]


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_goes_on_where_it_was() -> None:
    with Study.open("sweep", WORDS) as study, study.change() as content:
        content["points"] = [1]
    with Study.open("sweep", [*WORDS, "--json"]) as again:
        assert again.resumed
        assert again.folder == study.folder
        assert again.content["points"] == [1]
        again.end("completed")
    assert json.loads(again.path.read_text())["status"] == "completed"
    assert (again.folder / "command.txt").read_text() == "accel sweep model=mlp,cnn train.steps=3\n"
    assert (again.folder / "environment.json").exists()
    with Study.open("sweep", WORDS) as third:
        assert not third.resumed
        assert third.folder != study.folder


@pytest.mark.parametrize(("words", "new"), [(WORDS, True), ([*WORDS, "loader=memory"], False)])
def test_begins_another(words: list[str], new: bool) -> None:
    with Study.open("sweep", WORDS) as study:
        pass
    with Study.open("sweep", words, new=new) as other:
        assert not other.resumed
        assert other.folder != study.folder


def test_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with Study.open("sweep", WORDS, run_dir=folder):
        pass
    with Study.open("sweep", WORDS, run_dir=folder) as again:
        assert again.resumed
        again.end("completed")
    for words, new in ((WORDS, False), (WORDS, True), (["sweep", "a=1"], False)):
        with pytest.raises(ConfigError, match="holds"), Study.open("sweep", words, run_dir=folder, new=new):
            pass


def test_one_process_at_a_time() -> None:
    with Study.open("sweep", WORDS), pytest.raises(ConfigError, match="in use"), Study.open("sweep", WORDS):
        pass
