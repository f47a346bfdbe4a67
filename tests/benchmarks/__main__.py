"""Measure the pipeline beside what else a user could take. Not a part of the tests.

    pip install -e '.[test,benchmark]'
    python -m tests.benchmarks                    # everything: hours
    python -m tests.benchmarks by_id start        # these questions
    python -m tests.benchmarks --small            # a quick pass, to see that all of it runs
    python -m tests.benchmarks --save && python -m tests.readme    # renew the README's table

Prints a Markdown table; how it goes on is told on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import results
from tests.benchmarks.measuring import BenchmarkError, say
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and keep what was found if that is wanted; return 1 where something did not do what it was to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which questions: {', '.join(results.QUESTIONS)} (all)"
    )
    parser.add_argument("--small", action="store_true", help="a quick pass over few runs, whose numbers mean little")
    parser.add_argument("--alone", action="store_true", help="the pipeline alone, without peers")
    parser.add_argument("--times", type=int, metavar="N", help="how often each is run, whatever the question says")
    parser.add_argument("--save", action="store_true", help=f"keep what was found in {results.RESULTS.name}")
    parser.add_argument("--folder", type=Path, help="where to put lakes of up to some gigabytes (a temporary folder)")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - set(results.QUESTIONS):
        parser.error(f"no question is called {', '.join(sorted(unknown))}")
    if arguments.save and arguments.small:
        parser.error("what a small pass finds is not to be kept")
    print(f"{results.machine()}; load {os.getloadavg()[0]:.1f} before it began\n", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=arguments.folder) as name:
        folder = Path(name)
        options = Options(lakes=folder / "lakes", small=arguments.small, alone=arguments.alone, times=arguments.times)
        for question in arguments.names or results.QUESTIONS:
            lines = _measure(question, options, folder / question)
            if lines is None:
                failed = True
                continue
            print(f"{question}\n\n{results.table(lines)}\n", flush=True)
            if arguments.save:
                results.save({question: lines})
    return int(failed)


def _measure(question: str, options: Options, folder: Path) -> list[Line] | None:
    """Return what was found of a question; null, once it is told why, where something did not do what it was to."""
    say(question)
    folder.mkdir()
    try:
        lines: list[Line] = importlib.import_module(f"tests.benchmarks.{question}").measure(options, folder)
    except BenchmarkError as error:
        say(f"{question}: {error}")
        return None
    finally:
        shutil.rmtree(folder)
    # At the sizes of a small pass it is the start that is measured.
    return [replace(line, reached=None) for line in lines] if options.small else lines


if __name__ == "__main__":
    sys.exit(main())
