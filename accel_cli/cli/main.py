"""The command line: one parser (verbs.py), a file a verb. Nothing here imports torch."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from accel_cli.cli.verbs import parser
from accel_cli.errors import AccelError, ConfigError, Problem, format_problems

STARTED = time.time()


def _parse(words: list[str]) -> argparse.Namespace:
    """Flags and overrides in any order, which argparse allows for a verb's own parser only."""
    top = parser()
    verbs = next(action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction))
    own = verbs.get(words[0]) if words else None
    if own is None:
        return top.parse_args(words)
    return own.parse_intermixed_args(words[1:], argparse.Namespace(verb=words[0]))


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code of the contract."""
    words = sys.argv[1:] if argv is None else argv
    if words[:2] == ["completion", "words"]:  # asked by the shell at every press of the key
        from accel_cli.cli import completion_words

        return completion_words.main(words[2:])
    try:
        arguments = _parse(words)
        if arguments.verb is None:
            parser().print_help()
            return 0
        arguments.words = words
        return int(importlib.import_module(f"accel_cli.cli.{arguments.verb}").main(arguments))
    except AccelError as error:
        return _say(error, words)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except RecursionError:
        return _say(ConfigError(Problem("command", "nested too deep", "write it out plainly")), words)
    except Exception as error:
        if "--traceback" in words:
            raise
        why = f"accel itself failed: {type(error).__name__}: {error}"
        return _say(AccelError(why, "a fault of ours: please report it, with what --traceback shows"), words)


def _say(error: AccelError, words: list[str]) -> int:
    if "--traceback" in words:
        import traceback

        traceback.print_exception(error)
    if "--json" in words:
        problems = [vars(p) for p in error.problems] if isinstance(error, ConfigError) else []
        print(
            json.dumps({"exit_code": error.exit_code, "message": error.message, "try": error.fix, "problems": problems})
        )
    text = format_problems(error.problems) if isinstance(error, ConfigError) else error.message
    if error.fix:
        text += f"\n  {error.fix}"
    print(f"accel: {text}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
