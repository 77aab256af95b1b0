"""The parsers of the verbs that start many runs: sweep, ledger, tune, bench, advise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from accel_cli.cli.arguments import Parser, Shared, count, parallel, positive, share

SWEEP_EPILOG = """\
axes are in Hydra's grammar: a=1,2,3  a=range(1,5)  a=choice(x,y)  group=glob(adam*)
and to draw from: a=interval(0.1,0.9)  a=tag(log, interval(1e-4,1e-1))  a=int(interval(1,8))

  accel sweep optimizer.learning_rate=0.1,0.01 model=cnn,mlp
  accel sweep --search random --trials 30 'optimizer.learning_rate=tag(log, interval(1e-4,1e-1))'
  accel sweep --search optuna --trials 50 optimizer=glob(adam*) optimizer.weight_decay=0,0.01,0.1

killed or interrupted, the same line goes on where it was.
"""


LEDGER_EPILOG = """\
a technique is one override, or several in quotation marks; all are compared with the run as it is without them.

  accel ledger precision=bf16 compile=full                  each alone, both together, each left out
  accel ledger loader=memory "optimizer=sgd optimizer.learning_rate=0.1" --base "data=image_folder data.root=photos"
  accel ledger compile=full --run runs/X --to-target validation_accuracy=0.97 --seeds 5
"""


TUNE_EPILOG = """\
overrides are those of the run. The levers that can be used here are tried, or where a word names several values those:
the first of them is where it starts. Beside them: objective=throughput, time_to_target (of stopping=target) or memory,
and floor=METRIC-AMOUNT, what may be lost of the metric on validation; with a plus for a loss; floor=none.

  accel tune model=resnet data=cifar10                      every lever, accuracy kept to 0.003
  accel tune loader=auto,workers hardware.threads=2,1 floor=validation_accuracy-0.001 --seeds 5
  accel tune objective=time_to_target stopping=target stopping.target=0.97
"""


BENCH_EPILOG = """\
the run's steps take turns with a fixed load of plain torch and Python, so that what the machine itself does cancels.

  accel bench model=resnet --save bench/resnet.json                          once, where the gate will run
  accel bench model=resnet --against bench/resnet.json --max-slowdown 5%     exit 1: slower, beyond noise
"""


def add_studies(verb: Callable[..., Parser], parents: Shared) -> None:
    """Add them to the command line; ``verb`` makes a verb's parser."""
    common, code, composing, study = parents
    sweep = verb(
        "sweep", "a run for each point of several values; a table and a page", composing, study, epilog=SWEEP_EPILOG
    )
    sweep.add_argument("--retry-failed", action="store_true", help="also run again what has failed or was refused")
    sweep.add_argument(
        "--search", default="grid", choices=["grid", "random", "optuna"], help="every point (default), or some"
    )
    sweep.add_argument("--trials", type=count, metavar="N", help="points of --search random and optuna; default 20")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="of the search; default 0")
    sweep.add_argument(
        "--pruner",
        default="median",
        choices=["median", "asha", "none"],
        help="ends bad points of --search optuna early",
    )
    sweep.add_argument(
        "--metric", metavar="NAME", help="train_seconds, validation_loss ...; default the run's own, on validation"
    )
    sweep.add_argument("--mode", choices=["min", "max"], help="whether less or more of --metric is better")
    sweep.add_argument(
        "--parallel", type=parallel, default=1, metavar="N", help="points beside each other, or auto; default 1"
    )
    sweep.add_argument("--limit", type=positive, metavar="SECONDS", help="most that a point may take")

    ledger = verb(
        "ledger",
        "what each technique buys, alone and together, against a noise floor",
        common,
        code,
        study,
        epilog=LEDGER_EPILOG,
    )
    ledger.add_argument("techniques", nargs="+", metavar="TECHNIQUE", help="one or more overrides in one word")
    ledger.add_argument(
        "--base", action="append", default=[], metavar="OVERRIDES", help="of the run that is compared with"
    )
    ledger.add_argument("--run", type=Path, metavar="RUN", help="compare with this run's settings")
    ledger.add_argument("--config-dir", action="append", default=[], type=Path, metavar="DIR", help="your own options")
    ledger.add_argument("--alone", action="store_true", help="each technique alone only, no combinations")
    ledger.add_argument("--budget", type=positive, default=10.0, metavar="MINUTES", help="of probes; default 10")
    ledger.add_argument("--margin", type=share, default=0.01, help="effects up to this share are none; default 0.01")
    ledger.add_argument("--error", type=share, default=0.001, help="how often a verdict may err; default 0.001")
    ledger.add_argument("--seeds", type=count, default=0, metavar="N", help="also train whole runs over N seeds")
    ledger.add_argument(
        "--to-target", metavar="METRIC=VALUE", help="time until then in whole runs, such as validation_accuracy=0.97"
    )
    ledger.add_argument("--unequal", action="store_true", help="compare other work too, and say so")

    tune = verb("tune", "the fastest settings that fit and keep the metric", composing, study, epilog=TUNE_EPILOG)
    tune.add_argument("--budget", type=positive, default=15.0, metavar="MINUTES", help="of all of it; default 15")
    tune.add_argument("--seeds", type=count, default=3, metavar="N", help="whole runs that confirm; default 3")
    tune.add_argument(
        "--max-slowdown", type=share, default=0.25, metavar="SHARE", help="for objective=memory; default 25%%"
    )

    bench = verb(
        "bench",
        "is a run slower than it was? A gate for CI: exit 1 only beyond noise",
        composing,
        study,
        epilog=BENCH_EPILOG,
    )
    bench.add_argument("--save", type=Path, metavar="FILE", help="measure, and write a baseline")
    bench.add_argument("--against", type=Path, metavar="FILE", help="measure, and compare with a baseline")
    bench.add_argument("--max-slowdown", type=share, default=0.05, metavar="SHARE", help="allowed; default 5%%")
    bench.add_argument("--budget", type=positive, default=10.0, metavar="MINUTES", help="of rounds; default 10")
    bench.add_argument("--error", type=share, default=0.001, help="how often a verdict may err; default 0.001")
    bench.add_argument("--unequal", action="store_true", help="compare another machine or other work too, and say so")

    advise = verb("advise", "try the override that a run's end names: expected against measured", common, code)
    advise.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    advise.add_argument(
        "--budget", type=positive, default=5.0, metavar="MINUTES", help="no further round once it is spent; default 5"
    )
