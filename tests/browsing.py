"""A browser for tests of pages: Chromium as Debian packages it, or Chrome, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def everything() -> str:
    """The page of a story with all parts."""
    from stories import full_story

    from rehead.reporting.page import page

    return page(full_story())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium without a window, one for the tests of a file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


class Watched:
    """A page that is open in a browser. said: what its console and its scripts' errors said. asked: all addresses asked for."""

    def __init__(self, chromium: Any, file: Path, **context: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = chromium.new_context(**context).new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was said, and nothing asked for but the file and what stands in it."""
        file = self.page.url.partition("#")[0]
        return not self.said and {url for url in self.asked if not url.startswith("data:")} == {file}

    @property
    def fits(self) -> bool:
        """Whether there is no need to move the page sideways."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"))


@pytest.fixture
def look(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """look(html, viewport=...): the page as it opens with a browser's settings. All of them are closed afterwards."""
    seen: list[Watched] = []

    def run(html: str, **context: Any) -> Watched:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        seen.append(Watched(chromium, file, **context))
        return seen[-1]

    yield run
    for one in seen:
        one.page.context.close()
