"""Builds the native core `atrous._native`; everything else is in pyproject.toml."""

from __future__ import annotations

from setuptools import setup

setup()
