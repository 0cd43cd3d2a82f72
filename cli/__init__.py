"""The command line, one file a verb."""

from __future__ import annotations


def main() -> None:
    """Entry point of `atrous` and `python -m atrous`."""
    from .app import run_app

    run_app()
