"""A real headless Chromium for the tests of pages, and what it tells of a page: messages, errors, requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.programs import needed_program

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# West of Greenwich: a page that took its days for local time would show the day before.
_TIMEZONE = "America/Los_Angeles"


@contextmanager
def open_browser() -> Iterator[Any]:
    """Open a browser."""
    path = needed_program(*_NAMES, to_install="apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that was opened from a file: `page` is Playwright's, `told` what it wrote to the console or threw,
    `asked` the addresses that it asked for beyond its own file.
    """

    def __init__(
        self, browser: Any, path: Path, *, width: int = 1200, scripts: bool = True, dark: bool = False
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, timezone_id=_TIMEZONE, java_script_enabled=scripts
        )
        self.page = self.context.new_page()
        self.told: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.told.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.told.append(f"error: {error}"))
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        if scripts:
            self.wait_until_drawn()
        self.asked.remove(path.as_uri())

    def wait_until_drawn(self) -> None:
        """Wait for the charts."""
        self.page.wait_for_function("() => ['drawn', 'failed'].includes(document.documentElement.dataset.state)")
        assert self.page.evaluate("document.documentElement.dataset.state") == "drawn", self.told

    def click(self, selector: str) -> None:
        """Click something, and wait until the charts have followed."""
        self.page.click(selector)
        self.wait_until_drawn()

    def text(self, selector: str) -> str:
        """Return the text of an element, each piece of it behind a space, hidden ones too."""
        pieces = """element => {
            const [walker, found] = [document.createTreeWalker(element, NodeFilter.SHOW_TEXT), []];
            while (walker.nextNode()) found.push(walker.currentNode.data.trim());
            return found.filter(Boolean).join(" ");
        }"""
        text: str = self.page.eval_on_selector(selector, pieces)
        return text

    def table(self, name: str) -> list[list[str]]:
        """Return a table's rows: its head, its body, its foot."""
        rows = "table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent))"
        cells: list[list[str]] = self.page.eval_on_selector(f"#table-{name}", rows)
        return cells

    def hover(self, chart: str, *, at: float, height: float = 0.5) -> str:
        """Point at a part of a chart's width and height, and return what it tells."""
        plot = self.page.locator(f"#chart-{chart} svg path.background").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        self.page.mouse.move(box["x"] + box["width"] * at - 1, box["y"] + box["height"] * height)
        self.page.mouse.move(box["x"] + box["width"] * at, box["y"] + box["height"] * height)
        self.page.wait_for_selector("#tip:not([hidden])", timeout=5000)
        return " | ".join(self.page.locator("#tip p, #tip dt, #tip dd").all_text_contents())

    def close(self) -> None:
        self.context.close()
