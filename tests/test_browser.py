"""How tests find a browser: a test that needs one never passes or is skipped without it."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path: Path):
    browser._find.cache_clear()
    monkeypatch.delenv("CHROMIUM_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "PLACES", ())
    yield
    browser._find.cache_clear()


def program(path: Path, text: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_a_browser_the_test_fails_and_says_what_to_do() -> None:
    with pytest.raises(pytest.fail.Exception, match="none was found: install one .*CHROMIUM_PATH"):
        browser.find("/no/such/chrome")


def test_the_named_one_comes_before_the_systems_and_that_before_playwrights(monkeypatch, tmp_path: Path) -> None:
    own = program(tmp_path / "playwrights")
    assert browser.find(str(own)) == str(own)
    browser._find.cache_clear()
    system = program(tmp_path / "chromium")
    assert browser.find(str(own)) == str(system)
    browser._find.cache_clear()
    monkeypatch.setenv("CHROMIUM_PATH", str(program(tmp_path / "named")))
    assert browser.find(str(own)) == str(tmp_path / "named")


def test_a_named_one_that_is_not_there_is_not_replaced_by_another(monkeypatch, tmp_path: Path) -> None:
    program(tmp_path / "chromium")
    monkeypatch.setenv("CHROMIUM_PATH", str(tmp_path / "missing"))
    with pytest.raises(pytest.fail.Exception, match="none was found"):
        browser.find()


def test_debians_package_is_installed_where_that_may_be_done(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(browser.os, "geteuid", lambda: 0, raising=False)
    target = tmp_path / "chromium"
    program(tmp_path / "apt-get", f'case "$*" in *chromium*) echo > {target}; /bin/chmod 755 {target};; esac')
    assert browser.find() == str(target)
    browser._find.cache_clear()
    target.unlink()
    monkeypatch.setattr(browser.os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(pytest.fail.Exception, match="none was found"):
        browser.find()
