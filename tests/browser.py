"""A real Chromium for tests: `with open_page(...) as page:` gives a Playwright page with a profile of its own.

The browser is the one that CHROMIUM_PATH names, else the system's, else Playwright's own, else Debian's package, which
is installed where that may be done (as root, with apt-get). Where there is none the test fails and says what to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
NONE_FOUND = (
    "This test needs a Chromium, and none was found: install one (Debian: apt-get install chromium; elsewhere: "
    "python -m playwright install chromium), or set CHROMIUM_PATH to its program."
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000
"""Milliseconds that a step may take on a slow machine, and in which an `expect` must come true."""
expect.set_options(timeout=PATIENCE)
LANGUAGE = "en-US"
"""Of the browser, whatever that of the machine is."""

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 640},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}


@contextmanager
def open_page(**context: Any) -> Iterator[Page]:
    """A page of a new, empty profile. context: what Playwright's new_context takes, such as **PHONE.

    Errors of the page's own script fail the test when the page is closed.
    """
    with chromium() as browser:
        profile = browser.new_context(**{**DESKTOP, "locale": LANGUAGE, **context})
        profile.set_default_timeout(PATIENCE)
        page, faults = profile.new_page(), []
        page.on("pageerror", lambda error: faults.append(str(error)))
        try:
            yield page
        finally:
            profile.close()
        assert not faults, f"the page's script failed: {faults}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser itself, for tests that open many pages in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find(playwright.chromium.executable_path), args=list(FLAGS)
        )
        try:
            yield browser
        finally:
            browser.close()


def find(playwrights_own: str = "") -> str:
    """The browser's program. Fails the test, with one sentence, where there is none."""
    found = _find(playwrights_own)
    if not found:
        pytest.fail(NONE_FOUND, pytrace=False)
    return found


@lru_cache(maxsize=1)
def _find(playwrights_own: str) -> str:
    given = os.environ.get("CHROMIUM_PATH")
    if given:
        return shutil.which(given) or ""
    there = next(filter(None, map(shutil.which, NAMES)), "") or next((p for p in PLACES if Path(p).is_file()), "")
    return there or (playwrights_own if Path(playwrights_own).is_file() else "") or _from_debian()


def _from_debian() -> str:
    """Installs Debian's package where there is apt-get and the right to use it; "" where that did not work."""
    if not shutil.which("apt-get") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return ""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", "chromium"]):
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, timeout=800)
        if done.returncode:
            return ""
    return shutil.which("chromium") or ""
