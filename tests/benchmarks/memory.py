"""The peak of memory of a load by ID, at ten thousand runs and at a million."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.by_id import fetch, write_ids
from tests.benchmarks.measuring import SERVER_CORE, Spread, Took, keep_on, ratios, say
from tests.benchmarks.options import Options
from tests.benchmarks.results import Line
from tests.fast_server import serving_fast

_FEW, _MANY = 10_000, 1_000_000
_MOST_TIMES, _MOST_MIB = 1.1, 250


def measure(options: Options, folder: Path) -> list[Line]:
    """Return the peak at many runs beside that at a hundredth of them."""
    few, many = (50, 500) if options.small else (_FEW, _MANY)
    took: dict[int, list[Took]] = {few: [], many: []}
    with serving_fast() as server:
        keep_on(SERVER_CORE, server.pid)
        for turn in range(options.turns(1)):
            for number in (few, many):
                took[number].append(fetch(server, write_ids(folder, number), number, folder, turn))
                say(f"  {number:,} runs: {took[number][-1].peak_mib:.0f} MiB, {took[number][-1].wall_s:.0f} s")
    peaks = {number: [each.peak_mib for each in of] for number, of in took.items()}
    times, most = ratios(peaks[many], peaks[few]), Spread.of(peaks[many])
    return [
        Line(
            f"peak of memory, {many:,} runs by ID",
            most.text(" MiB", digits=0),
            f"at {few:,}: {Spread.of(peaks[few]).text(' MiB', digits=0)}",
            times.text(" times"),
            f"at most {_MOST_TIMES} times, and {_MOST_MIB} MiB",
            times.median <= _MOST_TIMES and most.median <= _MOST_MIB,
            {str(number): of for number, of in peaks.items()},
        )
    ]
