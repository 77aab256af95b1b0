"""Its folder goes on the path, so that every test can ``from ranks import run_ranks``."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from the recipes")
    parser.addoption("--strength", type=int, default=2, help="settings that meet in tests/test_combinations.py")
