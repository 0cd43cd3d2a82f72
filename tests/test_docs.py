"""Links between the Markdown files of the repository lead to files and headings that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def pages() -> list[str]:
    if shutil.which("git"):
        listing = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
        if listing.returncode == 0 and listing.stdout:
            return listing.stdout.split()
    return [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))]


def anchor(heading: str) -> str:
    """Anchor of a heading as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    broken = []
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, fragment = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists():
            broken.append(link)
        elif fragment and target.suffix == ".md":
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            if fragment not in map(anchor, headings):
                broken.append(link)
    assert broken == []


def test_anchors_are_githubs() -> None:
    assert anchor("Q/DQ placement") == "qdq-placement"
    assert anchor("onnxruntime and `onnxruntime-gpu`") == "onnxruntime-and-onnxruntime-gpu"
