"""A made-up organization: `demo`, `sandbox`."""

from __future__ import annotations

import argparse
import sys

from pipeline import defaults
from pipeline.commands.options import Commands, add_command, showing_progress


def add_demo(commands: Commands) -> None:
    """Add `pipeline demo`."""
    parser = add_command(
        commands,
        "demo",
        run_demo,
        "run everything on a made-up organization, without a key",
        more="Starts the sandbox on a free port of this machine, pulls its runs by ID, writes a lake of its own and\n"
        "reports on it. Needs no network, may be repeated, and leaves your own lake alone.",
        examples="  pipeline demo\n  pipeline demo --runs 10000 --seed 3",
    )
    parser.add_argument("--lake", default=defaults.DEMO_LAKE, help="where the demo's lake goes (%(default)s)")
    parser.add_argument(
        "--runs", type=int, default=3000, help="how many runs the made-up organization has (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=7, help="another seed makes another organization (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_sandbox(commands: Commands) -> None:
    """Add `pipeline sandbox`."""
    parser = add_command(
        commands,
        "sandbox",
        run_sandbox,
        "serve a made-up organization on this machine, as the API would",
        more="Prints the two export lines that point any client at it, and serves until Ctrl-C. The key followed by\n"
        "-org is organization-wide and needs a workspace. With --live, runs appear, finish, are\n"
        "reviewed and deleted while it serves.",
        examples="  pipeline sandbox --port 8900\n  pipeline sandbox --runs 20000 --limit 10 --faults 0.2\n"
        "  pipeline sandbox --port 8900 --live 5\n"
        "  curl -H 'Authorization: Bearer sandbox' -H 'x-extend-api-version: 2026-02-09' \\\n"
        "       http://127.0.0.1:8900/classify_runs",
    )
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (a free one if not given)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed makes the same organization (%(default)s)")
    parser.add_argument("--runs", type=int, default=5000, help="how many runs it has (%(default)s)")
    parser.add_argument("--key", default=defaults.SANDBOX_KEY, help="the key that it takes (%(default)s)")
    parser.add_argument("--limit", type=float, default=0.0, help="requests a second before it answers 429 (no limit)")
    parser.add_argument(
        "--faults", type=float, default=0.0, metavar="SHARE", help="share of faulty answers, 0 to 1 (0)"
    )
    parser.add_argument(
        "--live",
        type=float,
        default=0.0,
        metavar="EVENTS_A_SECOND",
        help="how many runs a second appear, finish, are reviewed or deleted meanwhile (none)",
    )


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the whole pipeline against the sandbox."""
    from pipeline.demo import run_demo as run

    with showing_progress(quiet=arguments.quiet) as progress:
        run(arguments.lake, seed=arguments.seed, runs=arguments.runs, progress=progress, stream=sys.stdout)
    return 0


def run_sandbox(arguments: argparse.Namespace) -> int:
    """Serve a made-up organization until Ctrl-C."""
    from pipeline.sandbox.server import serve_forever

    serve_forever(
        port=arguments.port,
        seed=arguments.seed,
        runs=arguments.runs,
        key=arguments.key,
        limit_qps=arguments.limit,
        fault_share=arguments.faults,
        events_a_second=arguments.live,
    )
    return 0
