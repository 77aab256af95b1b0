"""What became of a rank that could not say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from accel_cli.launch import first_failure

ABORTED = {"rank": 1, "pid": 1, "exit_code": -6}


@pytest.mark.parametrize(
    ("log", "says", "code"),
    [
        ("[rank1]:[E] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)", "did not answer", 6),
        ("terminate called without an active exception", "compiled code crashed", 3),
        ("", "compiled code crashed", 3),
    ],
)
def test_an_abort_by_nccls_watchdog_is_a_rank_that_did_not_answer(
    tmp_path: Path, log: str, says: str, code: int
) -> None:
    (tmp_path / "ranks").mkdir()
    (tmp_path / "ranks" / "1.log").write_text(log)
    found = first_failure.find(tmp_path, [ABORTED])
    assert says in found.message
    assert found.exit_code == code
