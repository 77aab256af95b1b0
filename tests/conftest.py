"""Its folder goes on the path, so that every test can ``from ranks import run_ranks``."""

import gc

import pytest
from parity_table import PARITY


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from the recipes")
    parser.addoption("--strength", type=int, default=2, help="settings that meet in tests/test_combinations.py")


def pytest_collection_finish() -> None:
    """What the suite itself holds, 750,000 objects, is not looked through again while a test is timed: 0.4 s a time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of parity, where it was measured."""
    found = config.stash.get(PARITY, {})
    if not found:
        return
    models = list(dict.fromkeys(model for _, model in found))
    terminalreporter.section("largest relative difference of a loss from strategy=single, 20 steps")
    terminalreporter.write_line(" " * 36 + "".join(f"{model:>28}" for model in models))
    for layout in dict.fromkeys(layout for layout, _ in found):
        cells = (found.get((layout, model)) for model in models)
        terminalreporter.write_line(
            f"{layout:36}" + "".join("-".rjust(28) if c is None else f"{c:28.1e}" for c in cells)
        )
