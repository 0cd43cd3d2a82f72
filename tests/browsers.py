"""Browsers that this machine has."""

from __future__ import annotations

import shutil

import needs

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str:
    """Path of Chromium or Chrome; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        needs.BROWSER.skip(f"none of {', '.join(_NAMES)} is on PATH")
    return found
