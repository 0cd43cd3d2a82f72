from __future__ import annotations

from pathlib import Path

import pytest

from atrous.cli.inputs import find_images
from atrous.errors import ImageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "c.txt", "clip.mp4", "[1].png", "sub/d.png", "sub.png/e.png"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    return tmp_path


def names(found: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([""], ["[1].png", "a.jpg", "b.PNG"]),  # of a folder: pictures, not what lies deeper
        (["a.jpg", "b.PNG"], ["a.jpg", "b.PNG"]),
        (["b.PNG", "a.jpg", "b.PNG", ""], ["b.PNG", "a.jpg", "[1].png"]),  # in order, once each
        (["*.png"], ["[1].png"]),  # files only, although a folder matches too
        (["**/*.png"], ["[1].png", "sub/d.png", "sub.png/e.png"]),
        (["[1].png"], ["[1].png"]),  # a file by that name comes before a pattern
        (["c.txt"], ["c.txt"]),  # requested by name: reading it will tell
        (["*.mp4"], ["clip.mp4"]),
    ],
)
def test_finds(folder: Path, sources: list[str], expected: list[str]) -> None:
    assert sorted(names(find_images(f"{folder}/{source}" for source in sources), folder)) == sorted(expected)


def test_keeps_the_order(folder: Path) -> None:
    assert names(find_images([folder / "b.PNG", folder]), folder) == ["b.PNG", "[1].png", "a.jpg"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.png", "no such file, folder or match"),
        ("*.tif", "no such file, folder or match"),
        ("empty", "no pictures in the folder"),
    ],
)
def test_nothing_is_an_error(folder: Path, source: str, said: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ImageError, match=said) as caught:
        find_images([folder / source])
    assert caught.value.path == folder / source


def test_a_dangling_link_is_no_file(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "gone.png")
    with pytest.raises(ImageError, match="no such file"):
        find_images([folder / "link.png"])


def test_no_source_at_all() -> None:
    with pytest.raises(ImageError, match="no input: got an empty list"):
        find_images([])
