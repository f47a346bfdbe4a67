"""Writes what in README.md comes from the code, and tells whether it is still true.

python -m tests.readme          rewrite the README's generated parts and its examples
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from pathlib import Path

from pipeline import cli, schema
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World
from tests.benchmarks import results
from tests.commands import environment_of, run_here

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
_PART = re.compile(r"<!-- (generated|example): (.+?) -->\n.*?<!-- end -->", re.DOTALL)

# What differs from one time to the next: names of loads, lengths of time, sizes, and how often progress is told.
_VARYING = (
    (re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{6}"), "20261123T101500000Z-a1b2c3"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), "2026-11-23 10:15:00 UTC"),
    (re.compile(r'"seconds": [\d.]+'), '"seconds": 1.5'),
    (re.compile(r"(?<=invalid of 535 in )[^(]+(?= \()"), "3.5 s"),
    (re.compile(r"(?<= failed in )[^(]+(?= \()"), "3.5 s"),
    (re.compile(r"[\d.]+ MB"), "4.0 MB"),
    (re.compile(r"^[\d,]+( of [\d,]+)? runs, .*\n", re.MULTILINE), ""),
)


def rewritten(text: str, folder: Path) -> str:
    """Return the README with all its generated parts and examples made anew; examples run in an empty folder."""
    world = World(seed=7, runs=600)
    workspace = world.workspaces[0]
    run_ids = [run_id for run_id in world.run_ids(workspace) if not run_id.startswith("vr_")]
    (folder / "ids.txt").write_text("\n".join([*run_ids, *world.deleted_ids(workspace)[:2], "oops"]) + "\n")
    with serve(world) as server:
        environment = environment_of(server, COLUMNS="120")

        def part(match: re.Match[str]) -> str:
            kind, what = match.groups()
            content = _GENERATORS[what]() if kind == "generated" else _example(what, folder, environment)
            return f"<!-- {kind}: {what} -->\n{content}\n<!-- end -->"

        return _PART.sub(part, text)


def _example(example: str, folder: Path, environment: dict[str, str]) -> str:
    command, _, reader = example.partition(" | ")
    program, *arguments = shlex.split(command)
    assert program == "pipeline"
    done = run_here(*arguments, folder=folder, environment=environment)
    told = done.stdout
    if reader:
        told = subprocess.run(reader, shell=True, input=told, capture_output=True, text=True, check=True).stdout
    output = done.stderr + told
    for pattern, steady in _VARYING:
        output = pattern.sub(steady, output)
    return f"```console\n$ {example}\n{output.rstrip()}\n```"


def _commands() -> str:
    parser = cli.build_parser()
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["| command | |", "| --- | --- |"]
    lines += [f"| `pipeline {choice.dest}` | {choice.help} |" for choice in action._choices_actions]
    return "\n".join(lines)


def _dictionary() -> str:
    parts = []
    for name, columns in (
        ("runs", (*schema.RUNS, schema.DAY)),
        ("loads", schema.LOADS),
        ("dead_letters", schema.DEAD_LETTERS),
    ):
        parts.append(f"### `{name}`\n\n| column | type | |\n| --- | --- | --- |")
        parts += [
            f"| `{each.name}` | {_TYPE_NAMES[each.type]} | {each.description.replace('|', chr(92) + '|')} |"
            for each in columns
        ]
        parts.append("")
    return "\n".join(parts).rstrip()


_TYPE_NAMES = {
    schema.BREAKDOWN: "list<struct<object, id, credits, "
    "charges: list<struct<product, unit, quantity, credits, pages>>>>",
    schema.TIME: "timestamp (UTC)",
    schema.CREDITS: "decimal(18, 6)",
    schema.TEXT: "text",
    schema.INT: "int64",
    schema.FLOAT: "double",
    schema.FLAG: "bool",
    schema.Map(schema.TEXT, schema.INT): "map<text, int64>",
}


_GENERATORS = {"commands": _commands, "dictionary": _dictionary, "speed": results.saved_table}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        README.write_text(rewritten(README.read_text(), Path(empty)))
