"""One table, or a few, as a web page in one file: nothing is fetched, whatever comes from data is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TextIO

_STYLE = """\
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 1rem; }
p { margin: .5rem 0; max-width: 60rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .75rem; text-align: left; vertical-align: top; }
th { border-bottom-width: 2px; }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--soft); }
"""


@dataclass(frozen=True, slots=True)
class Page:
    """What stands around a table: a title above it, sentences below."""

    title: str
    notes: Sequence[str] = ()


def write_page(
    page: Page,
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    cell: Callable[[Any], str],
    numbers: Sequence[bool],
    stream: TextIO,
) -> None:
    """Write a page with one table; `cell` makes text of a value, `numbers` says which columns stand to the right."""
    title = escape(page.title)
    kinds = [' class="number"' if number else "" for number in numbers]
    stream.write(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        '<div tabindex="0">\n<table>\n<thead>\n<tr>'
    )
    stream.writelines(
        f'<th scope="col"{kind}>{escape(cell(name))}</th>' for name, kind in zip(names, kinds, strict=True)
    )
    stream.write("</tr>\n</thead>\n<tbody>\n")
    for row in rows:
        cells = "".join(f"<td{kind}>{escape(cell(value))}</td>" for value, kind in zip(row, kinds, strict=True))
        stream.write(f"<tr>{cells}</tr>\n")
    stream.write("</tbody>\n</table>\n</div>\n")
    stream.writelines(f"<p>{escape(cell(note))}</p>\n" for note in page.notes)
    stream.write("</body>\n</html>\n")
