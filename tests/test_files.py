"""Files that appear whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from atrous.files import write_whole


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    path.write_bytes(b"old")
    with write_whole(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "labels.png"
    path.write_bytes(b"old")

    def fail() -> None:
        with write_whole(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_or_none_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in ("absent", "file"):
        with pytest.raises(OSError), write_whole(tmp_path / folder / "x") as temporary:  # noqa: PT011 - its subclasses
            temporary.write_bytes(b"x")


def test_writers_at_once_leave_one_of_their_files(tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    contents = [bytes([value]) * 100_000 for value in range(8)]

    def write(data: bytes) -> None:
        for _ in range(5):
            with write_whole(path) as temporary:
                temporary.write_bytes(data)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]
