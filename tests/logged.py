"""Reads raw logs without the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zstandard


def logged(path: Path) -> dict[str, Any]:
    """Read the payloads of a raw log, as far as its frames are whole, with nothing but zstandard."""
    payloads: dict[str, Any] = {}
    rest = path.read_bytes()
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            lines = frame.decompress(rest)
        except zstandard.ZstdError:
            break
        if not frame.eof:
            break
        for line in lines.splitlines():
            record = json.loads(line)
            if record["record"] == "run":
                payloads[record["run_id"]] = record["payload"]
        rest = frame.unused_data
    return payloads
