"""Where the law of parity keeps what it measured, for the table at the end."""

import pytest

PARITY = pytest.StashKey[dict[tuple[str, str], float]]()
"""(layout, model) -> the largest relative difference of a loss from one process's."""
