"""Words and flags that argparse refuses: said as all else is, in words that the line was typed in."""

from __future__ import annotations

import pytest

from accel_cli.cli.main import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("advise one two", "  two   is one word too many for accel advise   see accel advise --help"),
        ("report --markdwn runs", "  --markdwn   no such flag   did you mean --markdown ?"),
        ("reprot runs", "  reprot   no such verb   did you mean report ?"),
        ("ledger", "  accel ledger   needs TECHNIQUE   see accel ledger --help"),
        ("resume", "  accel resume   needs RUN   see accel resume --help"),
        ("tune --budget much", "  --budget   much is not a number above 0   see accel tune --help"),
        ("tune --budget -1", "  --budget   -1 is not a number above 0   see accel tune --help"),
        ("ledger loader=memory --margin 120%", "  --margin   120% is not between 0 and 1, or between 0% and 100%"),
        ("sweep model=cnn,mlp --trials 1.5", "  --trials   1.5 is not a whole number, 1 or more"),
        ("sweep model=cnn,mlp --trials", "  --trials   expected one argument   see accel sweep --help"),
        ("sweep model=cnn,mlp --search optunaa", "  optunaa   not one of its choices   did you mean optuna ?"),
    ],
)
def test_what_is_typed_wrongly_is_named(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
