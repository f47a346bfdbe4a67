"""A small organization that is served and lives, for tests: with a clock that moves only when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from pipeline.kinds import API_VERSION, Kind
from pipeline.sandbox.life import Life
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World

Payload = dict[str, Any]
UNFINISHED = ("PENDING", "PROCESSING")
START = datetime(2026, 12, 1, 9, 30, tzinfo=UTC)


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def pass_s(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.at += timedelta(seconds=seconds)


class Organization:
    """A world that is served, its life, and what the API answers about its runs."""

    def __init__(self, world: World, server: SandboxServer, client: httpx.Client) -> None:
        self.world, self.server, self.client = world, server, client
        self.clock = Clock()
        self.life = Life(world, seed=world.seed, now=self.clock)

    def get(self, path: str, workspace: str, **query: str) -> httpx.Response:
        """Ask with the organization's key for a path in a workspace."""
        return self.client.get(path, params=query, headers={"x-extend-workspace-id": workspace})

    def rows(self, kind: Kind, workspace: str, **query: str) -> list[Payload]:
        """Return all that the list of a kind shows in a workspace, in its order."""
        asked = {"limit" if kind.object == "parse_run" else "maxPageSize": "100", **query}
        rows: list[Payload] = []
        while True:
            answer = self.get(kind.path, workspace, **asked)
            assert answer.status_code == 200, answer.text
            rows += answer.json()["data"]
            if "nextPageToken" not in answer.json():
                return rows
            asked["nextPageToken"] = answer.json()["nextPageToken"]

    def row(self, run_id: str) -> Payload | None:
        """Return how its list shows a run, or None where it does not."""
        run = self.world.run(run_id)
        found = [row for row in self.rows(run.kind, run.workspace) if row["id"] == run_id]
        assert len(found) <= 1
        return found[0] if found else None

    def detail(self, run_id: str) -> Payload:
        """Return what the API answers by ID; a run that does not exist is an AssertionError."""
        answer = self.read(run_id)
        assert answer.status_code == 200, answer.text
        payload: Payload = answer.json()
        return payload

    def read(self, run_id: str) -> httpx.Response:
        """Ask for a run by ID, whatever comes of it."""
        run = self.world.run(run_id)
        return self.get(f"{run.kind.path}/{run_id}", run.workspace, responseType="url")


@contextmanager
def organization(seed: int = 5, runs: int = 120, **options: Any) -> Iterator[Organization]:
    """Serve a world of so many runs, with the options of `serve`, until the block ends."""
    world = World(seed=seed, runs=runs)
    with serve(world, **options) as server:
        headers = {"authorization": f"Bearer {server.org_key}", "x-extend-api-version": API_VERSION}
        with httpx.Client(base_url=server.base_url, headers=headers, timeout=20) as client:
            yield Organization(world, server, client)


def read_time(text: str) -> datetime:
    """Return the time that a payload tells."""
    return datetime.fromisoformat(text)
