from __future__ import annotations

import random
from pathlib import Path

import pytest

from atrous.batch import Shard, WorkItem, WorkOptions, find_work
from atrous.errors import ArgumentError, BatchError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five images in three folders, and files that are none; nothing of it is read."""
    for name in ("a.jpg", "b.PNG", "day/a.jpg", "day/late/c.tif", "night/a.jpg", "notes.md", ".hidden/d.png", ".e.png"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "tree"


def names(items: list[WorkItem]) -> list[str]:
    return [item.name for item in items]


class TestSources:
    def test_a_folder_with_all_below_it(self, tree: Path) -> None:
        items = find_work([tree])
        assert names(items) == ["a", "b", "day/a", "day/late/c", "night/a"]
        assert items[3].image.path == tree / "day" / "late" / "c.tif"

    def test_files(self, tree: Path) -> None:
        assert names(find_work([tree / "night" / "a.jpg", tree / "b.PNG"])) == ["a", "b"]

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [("*.jpg", ["a"]), ("*/a.jpg", ["day/a", "night/a"]), ("**/*.tif", ["day/late/c"]), ("day/*.jpg", ["a"])],
    )
    def test_globs_are_named_from_their_first_wildcard(self, tree: Path, pattern: str, expected: list[str]) -> None:
        assert names(find_work([tree / pattern])) == expected

    def test_a_list_is_relative_to_its_folder(self, tree: Path) -> None:
        (tree / "list.txt").write_text(f"day/a.jpg\n\n{tree}/b.PNG\r\n/data/other/d.png\n")
        items = find_work([tree / "list.txt"])
        assert names(items) == ["b", "data/other/d", "day/a"]
        assert items[1].image.path == Path("/data/other/d.png")

    @pytest.mark.parametrize(
        ("text", "column"),
        [
            ("id,image\n1,day/a.jpg\n2,b.PNG\n3,\n", None),
            ("id,image,path\n1,x.png,day/a.jpg\n2,y.png,b.PNG\n", "path"),
            ("where\nday/a.jpg\nb.PNG\n", None),
            ('path,note\n"day/a.jpg","one, two"\nb.PNG,\n', None),
        ],
    )
    def test_tables(self, tree: Path, text: str, column: str | None) -> None:
        (tree / "list.csv").write_text(text)
        (tree / "list.tsv").write_text(text.replace("one, two", "one").replace(",", "\t"))
        for name in ("list.csv", "list.tsv"):
            assert names(find_work([tree / name], WorkOptions(column=column))) == ["b", "day/a"]

    def test_an_image_that_is_given_twice_is_one(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tree)
        (tree / "list.txt").write_text("a.jpg\na.jpg\nday/../a.jpg\n")
        assert names(find_work([tree, "a.jpg", tree / "*.jpg", "list.txt"])) == names(find_work([tree]))

    def test_results_are_no_images(self, tree: Path) -> None:
        assert names(find_work([tree], WorkOptions(besides=tree / "day"))) == ["a", "b", "night/a"]

    def test_how_images_are_read(self, tree: Path) -> None:
        (item,) = find_work([tree / "a.jpg"], WorkOptions(page=2, bits=12))
        assert (item.image.page, item.image.bits) == (2, 12)


class TestNames:
    def test_below_a_root(self, tree: Path) -> None:
        items = find_work([tree / "day", tree / "night"], WorkOptions(root=tree))
        assert names(items) == ["day/a", "day/late/c", "night/a"]

    def test_outside_of_the_root(self, tree: Path) -> None:
        with pytest.raises(BatchError, match="is not below the root"):
            find_work([tree / "a.jpg"], WorkOptions(root=tree / "day"))

    def test_of_two_folders_collide(self, tree: Path) -> None:
        with pytest.raises(BatchError, match=r"one name, 'a': .*day/a.jpg and .*night/a.jpg.*--root FOLDER"):
            find_work([tree / "day", tree / "night"])

    def test_of_two_endings_collide(self, tree: Path) -> None:
        (tree / "a.png").touch()
        with pytest.raises(BatchError, match=r"--keep-endings"):
            find_work([tree])
        assert names(find_work([tree], WorkOptions(keep_endings=True)))[:2] == ["a.jpg", "a.png"]

    def test_of_a_file_and_a_folder_collide(self, tree: Path) -> None:
        (tree / "a.png").mkdir()
        (tree / "a.png" / "x.jpg").touch()
        with pytest.raises(BatchError, match=r"a.jpg would be in the way of the folder a.png"):
            find_work([tree])


class TestBadSources:
    def test_none(self) -> None:
        with pytest.raises(BatchError, match="got no images"):
            find_work([])

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("empty.txt", "", "the list .*empty.txt is empty"),
            ("blank.txt", "\n\n", "is empty"),
            ("header.csv", "image\n", "is empty"),
            ("nothing.csv", "", "has no column image or path .*it has none"),
            ("other.csv", "id,picture\n1,a.jpg\n", r"it has id, picture. .*--column NAME"),
            ("quotes.csv", 'image\n"a.jpg\n', "is no table in line"),
        ],
    )
    def test_lists(self, tmp_path: Path, name: str, text: str, said: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(BatchError, match=said):
            find_work([tmp_path / name])

    @pytest.mark.parametrize("source", ["missing.png", "missing/", "*.gif", "x" * 5000])
    def test_that_do_not_exist(self, tree: Path, source: str) -> None:
        with pytest.raises((BatchError, ArgumentError), match=r"no such file, folder or match|cannot read|no file can"):
            find_work([f"{tree}/{source}"])

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        with pytest.raises(BatchError, match="no pictures in the folder"):
            find_work([tmp_path])


class TestShards:
    NAMES = tuple(f"{index % 7}/{index:04}" for index in range(1000))

    @pytest.mark.parametrize("count", [1, 2, 7, 64])
    def test_are_disjoint_and_complete(self, count: int) -> None:
        parts = [{name for name in self.NAMES if name in Shard(index, count)} for index in range(1, count + 1)]
        assert sum(map(len, parts)) == len(self.NAMES)
        assert set().union(*parts) == set(self.NAMES)
        assert max(map(len, parts)) < 3 * len(self.NAMES) / count

    def test_do_not_depend_on_order_or_on_other_images(self) -> None:
        shuffled = random.Random(0).sample(self.NAMES, 500)
        part = Shard(2, 5)
        assert {name for name in shuffled if name in part} == {name for name in self.NAMES if name in part} & set(
            shuffled
        )

    def test_are_the_same_forever(self) -> None:
        """A change would run images of half-done data sets twice, and others never."""
        assert [name for name in self.NAMES[:20] if name in Shard(1, 4)] == FIRST_OF_FOUR

    @pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/3", "1" * 5000 + "/3"])
    def test_that_there_are_not(self, text: str) -> None:
        with pytest.raises(BatchError, match="shard"):
            Shard.parse(text)

    def test_are_read(self) -> None:
        assert Shard.parse(" 3/8 ") == Shard(3, 8)
        assert str(Shard(3, 8)) == "3/8"


FIRST_OF_FOUR = ["2/0002", "3/0003", "5/0005", "4/0011", "5/0012", "4/0018"]
