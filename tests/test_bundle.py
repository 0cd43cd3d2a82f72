"""Bundles: whole or not at all on the way out, checked before anything is loaded on the way in."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest

import atrous
from atrous.bundle import ENGINE_FOLDER, MANIFEST_FILE, Bundle, StagedBundle, extend_bundle, hash_file, stage_bundle
from atrous.errors import BundleError

ONNX = "model.fp32.onnx"


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle of its own for a test that changes it."""
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous"))


def write_bundle(path: Path, source: Bundle, content: bytes, *, overwrite: bool = False) -> None:
    """A bundle with one artifact that holds `content`, described by the manifest of `source`."""
    with stage_bundle(path, overwrite=overwrite) as staged:
        (staged.path / ONNX).write_bytes(content)
        artifact = staged.artifact(ONNX, kind="onnx", precision="fp32", provenance={})
        staged.write_manifest(dataclasses.replace(source.manifest, artifacts=(artifact,)))


def stage(target: Path, fill: Callable[[StagedBundle], object], *, overwrite: bool = False) -> None:
    with stage_bundle(target, overwrite=overwrite) as staged:
        fill(staged)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / MANIFEST_FILE
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")


def point_artifact_at(folder: Path, file: str) -> None:
    edit_manifest(folder, lambda data: data["artifacts"][0].update(file=file))


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


class TestOpen:
    def test_what_was_packed_opens_and_checks(self, tiny_bundle: Bundle) -> None:
        opened = Bundle.open(str(tiny_bundle.path))
        opened.check()
        assert opened.manifest == tiny_bundle.manifest
        artifact = opened.find(kind="onnx", precision="fp32")
        assert artifact is not None
        assert opened.read(artifact) == (tiny_bundle.path / ONNX).read_bytes()
        assert opened.find(kind="engine") is None
        assert opened.find(kind="onnx", precision="int8") is None

    @pytest.mark.parametrize("place", ["nowhere.atrous", "a file", "an empty folder"])
    def test_what_is_no_bundle_says_what_was_expected(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "a file").write_text("x")
        (tmp_path / "an empty folder").mkdir()
        with pytest.raises(BundleError, match=r"is not an atrous bundle.*atrous export"):
            Bundle.open(tmp_path / place)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not valid JSON"),
            (b'{"schema_version": "1.0", "name"', "not valid JSON"),
            ("{}".encode("utf-16"), "not UTF-8"),
            (b'{"name": "\xff"}', "not UTF-8"),
            (b'{"schema_version": "2.0"}', "Upgrade atrous"),
        ],
    )
    def test_damaged_manifests_name_the_bundle(self, copied: Path, content: bytes, message: str) -> None:
        (copied / MANIFEST_FILE).write_bytes(content)
        with pytest.raises(BundleError, match=message) as caught:
            Bundle.open(copied)
        assert str(copied) in str(caught.value)
        assert caught.value.path == copied

    def test_missing_file(self, copied: Path) -> None:
        (copied / ONNX).unlink()
        with pytest.raises(BundleError, match=rf"{ONNX} is listed in the manifest but missing"):
            Bundle.open(copied)

    def test_folder_in_place_of_a_file(self, copied: Path) -> None:
        (copied / ONNX).unlink()
        (copied / ONNX).mkdir()
        with pytest.raises(BundleError, match="missing"):
            Bundle.open(copied)

    def test_truncated_file(self, copied: Path) -> None:
        with (copied / ONNX).open("r+b") as file:
            file.truncate(100)
        with pytest.raises(BundleError, match=r"has 100 bytes; the manifest says \d+"):
            Bundle.open(copied)

    @pytest.mark.parametrize("consume", [Bundle.check, lambda opened: opened.read(opened.manifest.artifacts[0])])
    def test_one_changed_bit_is_found_before_anything_is_given_out(
        self, copied: Path, consume: Callable[[Bundle], object]
    ) -> None:
        data = bytearray((copied / ONNX).read_bytes())
        data[len(data) // 2] ^= 1
        (copied / ONNX).write_bytes(data)
        with pytest.raises(BundleError, match=r"SHA-256.*nothing was loaded"):
            consume(Bundle.open(copied))

    def test_a_changed_file_is_not_loaded_by_the_runtime(self, copied: Path) -> None:
        edit_manifest(copied, lambda data: data["artifacts"][0].update(sha256="0" * 64))
        with pytest.raises(BundleError, match="SHA-256"):
            atrous.load(copied)

    @pytest.mark.parametrize(
        "consume", [Bundle.check, lambda opened: opened.read(opened.manifest.artifacts[0])], ids=["check", "read"]
    )
    def test_a_file_that_vanishes_after_opening(self, copied: Path, consume: Callable[[Bundle], object]) -> None:
        opened = Bundle.open(copied)
        (copied / ONNX).unlink()
        with pytest.raises(BundleError, match=ONNX):
            consume(opened)

    @pytest.mark.parametrize(
        "file",
        [
            "../outside.onnx",
            "engines/../../outside.onnx",
            f"engines/../{ONNX}",
            "/etc/passwd",
            "..",
            "..\\outside.onnx",
            "engines\\model.onnx",
        ],
    )
    def test_a_path_that_leads_out_is_refused(self, copied: Path, file: str) -> None:
        shutil.copy(copied / ONNX, copied.parent / "outside.onnx")
        point_artifact_at(copied, file)
        with pytest.raises(BundleError, match="leads out of the bundle"):
            Bundle.open(copied)

    @pytest.mark.parametrize("file", ["a\0b", "\ud800", "x" * 5000, ".", "model.fp32.onnx/x"])
    def test_a_path_that_no_file_has_is_a_bundle_error(self, copied: Path, file: str) -> None:
        point_artifact_at(copied, file)
        with pytest.raises(BundleError):
            Bundle.open(copied)

    @pytest.mark.parametrize("level", ["file", "folder"])
    def test_a_link_that_leads_out_is_refused(self, copied: Path, level: str) -> None:
        outside = copied.parent / "outside"
        outside.mkdir()
        shutil.move(copied / ONNX, outside / ONNX)
        if level == "file":
            (copied / ONNX).symlink_to(outside / ONNX)
        else:
            (copied / "engines").symlink_to(outside)
            point_artifact_at(copied, f"engines/{ONNX}")
        with pytest.raises(BundleError, match="leads out of the bundle"):
            Bundle.open(copied)

    def test_a_link_that_stays_inside_is_fine(self, copied: Path) -> None:
        (copied / ONNX).rename(copied / "blob")
        (copied / ONNX).symlink_to("blob")
        Bundle.open(copied).check()

    def test_a_link_that_replaces_the_file_after_opening_is_refused(self, copied: Path) -> None:
        opened = Bundle.open(copied)
        shutil.move(copied / ONNX, copied.parent / ONNX)
        (copied / ONNX).symlink_to(copied.parent / ONNX)
        with pytest.raises(BundleError, match="leads out of the bundle"):
            opened.read(opened.manifest.artifacts[0])

    def test_a_circle_of_links_is_a_bundle_error(self, copied: Path) -> None:
        (copied / ONNX).unlink()
        (copied / ONNX).symlink_to(ONNX)
        with pytest.raises(BundleError, match=ONNX):
            Bundle.open(copied)

    def test_a_bundle_behind_a_link_opens(self, copied: Path) -> None:
        link = copied.parent / "latest.atrous"
        link.symlink_to(copied)
        Bundle.open(link).check()

    def test_hash_of_a_file_longer_than_one_piece(self, tmp_path: Path) -> None:
        file = tmp_path / "long"
        file.write_bytes(b"a" * 3_000_000)
        expected = subprocess.run(["sha256sum", file], capture_output=True, check=True, text=True).stdout.split()[0]
        assert hash_file(file) == expected


class TestStage:
    def test_a_new_bundle_in_a_new_folder(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "er" / "new.atrous"
        write_bundle(target, tiny_bundle, b"content")
        Bundle.open(target).check()
        assert leftovers(target.parent) == []
        assert target.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("name", ["model", "model.zip", ".atrous", "model.ATROUS"])
    def test_the_name_ends_in_atrous(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BundleError, match=r"ends in '\.atrous'"), stage_bundle(tmp_path / name):
            pytest.fail("must not start")

    def test_what_exists_is_kept_unless_told(self, tiny_bundle: Bundle, copied: Path) -> None:
        with pytest.raises(BundleError, match="exists already"):
            write_bundle(copied, tiny_bundle, b"new")
        Bundle.open(copied).check()
        write_bundle(copied, tiny_bundle, b"new", overwrite=True)
        assert (copied / ONNX).read_bytes() == b"new"
        assert leftovers(copied.parent) == []

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_what_is_no_bundle_is_never_replaced(self, tiny_bundle: Bundle, tmp_path: Path, kind: str) -> None:
        target = tmp_path / "photos.atrous"
        if kind == "file":
            target.write_text("mine")
        else:
            target.mkdir()
            (target / "photo.jpg").write_text("mine")
        with pytest.raises(BundleError, match="is not a bundle: refusing"):
            write_bundle(target, tiny_bundle, b"new", overwrite=True)
        assert (target if kind == "file" else target / "photo.jpg").read_text() == "mine"

    def test_a_folder_that_cannot_be_written(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(BundleError, match=r"cannot write to .*Choose a writable folder"):
            write_bundle(tmp_path / "file" / "new.atrous", tiny_bundle, b"new")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
    @pytest.mark.parametrize("exists", [False, True])
    def test_an_error_halfway_leaves_everything_as_it_was(
        self, tiny_bundle: Bundle, tmp_path: Path, error: type[BaseException], exists: bool
    ) -> None:
        target = tmp_path / "tiny.atrous"
        if exists:
            shutil.copytree(tiny_bundle.path, target)

        def fail(staged: StagedBundle) -> None:
            (staged.path / ONNX).write_bytes(b"half")
            raise error

        with pytest.raises(error):
            stage(target, fail, overwrite=True)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == (["tiny.atrous"] if exists else [])
        if exists:
            Bundle.open(target).check()

    def test_a_wrong_manifest_is_not_published(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="missing"):
            stage(tmp_path / "new.atrous", lambda staged: staged.write_manifest(tiny_bundle.manifest))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("interrupted", ["stepping aside", "moving in"])
    def test_ctrl_c_between_the_renames_brings_the_old_bundle_back(
        self, tiny_bundle: Bundle, copied: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
    ) -> None:
        monkeypatch.setattr("atrous.bundle_folders.exchange", lambda *_: False)  # a filesystem that takes two steps
        real = Path.rename

        def rename(self: Path, target: Path) -> Path:
            moving_in = Path(target) == copied and ".old." not in str(self)
            if interrupted == "moving in" and moving_in:
                raise KeyboardInterrupt
            done = real(self, target)
            if interrupted == "stepping aside" and self == copied:
                raise KeyboardInterrupt  # as if the signal came while the call returned
            return done

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(copied, tiny_bundle, b"new", overwrite=True)
        monkeypatch.undo()
        Bundle.open(copied).check()
        assert leftovers(copied.parent) == []

    @pytest.mark.parametrize("in_the_way", ["bundle", "file"])
    def test_a_bundle_that_appears_meanwhile_is_kept(
        self, tiny_bundle: Bundle, tmp_path: Path, in_the_way: str
    ) -> None:
        target = tmp_path / "new.atrous"

        def meanwhile(_: StagedBundle) -> None:
            if in_the_way == "bundle":
                shutil.copytree(tiny_bundle.path, target)
            else:
                target.write_text("mine")

        with pytest.raises(BundleError, match="cannot put the bundle at"):
            stage(target, meanwhile)
        assert leftovers(tmp_path) == []
        if in_the_way == "bundle":
            Bundle.open(target).check()
        else:
            assert target.read_text() == "mine"

    def test_a_link_is_replaced_and_what_it_points_to_stays(self, tiny_bundle: Bundle, copied: Path) -> None:
        link = copied.parent / "latest.atrous"
        link.symlink_to(copied)
        write_bundle(link, tiny_bundle, b"new", overwrite=True)
        assert (link / ONNX).read_bytes() == b"new"
        Bundle.open(copied).check()
        assert (copied / ONNX).read_bytes() != b"new"

    def test_a_real_ctrl_c(self, copied: Path, tmp_path: Path) -> None:
        """A process of its own gets SIGINT while it stages over an existing bundle."""
        script = (
            "import sys, time\n"
            "from atrous.bundle import stage_bundle\n"
            "with stage_bundle(sys.argv[1], overwrite=True) as staged:\n"
            "    (staged.path / 'half').write_bytes(b'x')\n"
            "    print('staging', flush=True)\n"
            "    time.sleep(60)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(copied)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "staging\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) != 0
        Bundle.open(copied).check()
        assert [entry.name for entry in tmp_path.iterdir()] == [copied.name]

    def test_readers_see_the_old_bundle_or_the_new_one(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        """While a bundle is replaced over and over, a reader gets whole contents or a BundleError, never a mixture."""
        target = tmp_path / "busy.atrous"
        contents = {bytes([65 + index]) * 50_000 for index in range(8)}
        write_bundle(target, tiny_bundle, min(contents))
        done = threading.Event()
        seen: set[bytes] = set()
        problems: list[BaseException] = []

        def read() -> None:
            while not done.is_set():
                try:
                    opened = Bundle.open(target)
                    seen.add(opened.read(opened.manifest.artifacts[0]))
                except BundleError:
                    continue
                except BaseException as exc:
                    problems.append(exc)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            for content in sorted(contents) * 4:
                write_bundle(target, tiny_bundle, content, overwrite=True)
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert problems == []
        assert seen
        assert seen <= contents
        assert leftovers(tmp_path) == []

    @needs.DEV_FULL.unless(Path("/dev/full").exists())  # a device without space
    def test_a_full_disk_is_a_bundle_error(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        def write_to_full_disk(staged: StagedBundle) -> None:
            (staged.path / MANIFEST_FILE).symlink_to("/dev/full")
            staged.write_manifest(tiny_bundle.manifest)

        with pytest.raises(BundleError, match="No space left"):
            stage(tmp_path / "new.atrous", write_to_full_disk)
        assert list(tmp_path.iterdir()) == []


class TestWrite:
    def test_folders_are_made(self, tmp_path: Path) -> None:
        StagedBundle(tmp_path).write("reports/deep/int8.txt", b"text")
        assert (tmp_path / "reports/deep/int8.txt").read_bytes() == b"text"

    def test_a_file_that_may_not_be_written_is_replaced_and_not_changed(self, tmp_path: Path) -> None:
        """A bundle served to others may be read-only, and its copy with it; a hard link shows what is written where."""
        original = tmp_path / "original"
        original.write_bytes(b"old")
        original.chmod(0o444)
        (tmp_path / "staged").mkdir()
        (tmp_path / "staged" / "report").hardlink_to(original)
        StagedBundle(tmp_path / "staged").write("report", b"new")
        assert original.read_bytes() == b"old"
        assert (tmp_path / "staged" / "report").read_bytes() == b"new"

    def test_what_is_in_the_way_is_an_error_with_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "reports").write_bytes(b"")
        with pytest.raises(BundleError, match=r"cannot write reports/int8\.txt: .*The bundle is as it was") as raised:
            StagedBundle(tmp_path).write("reports/int8.txt", b"text")
        assert raised.value.path == tmp_path / "reports/int8.txt"


class TestExtend:
    @staticmethod
    def add(bundle: Bundle, content: bytes, *, interrupt: bool = False) -> None:
        with extend_bundle(bundle) as staged:
            (staged.path / "more.onnx").write_bytes(content)
            artifact = staged.artifact("more.onnx", kind="onnx", precision="fp16", provenance={})
            staged.write_manifest(bundle.manifest.with_artifact(artifact))
            if interrupt:
                raise KeyboardInterrupt

    def test_what_was_there_stays(self, copied: Path) -> None:
        (copied / "reports").mkdir()
        (copied / "reports" / "notes.txt").write_text("mine", encoding="utf-8")
        before = Bundle.open(copied)
        self.add(before, b"added")
        after = Bundle.open(copied)
        after.check()
        assert after.manifest.artifacts[:-1] == before.manifest.artifacts
        assert after.read(after.manifest.artifacts[-1]) == b"added"
        assert (copied / "reports" / "notes.txt").read_text(encoding="utf-8") == "mine"
        assert leftovers(copied.parent) == []

    def test_an_interruption_leaves_it_as_it_was(self, copied: Path) -> None:
        before = Bundle.open(copied)
        with pytest.raises(KeyboardInterrupt):
            self.add(before, b"added", interrupt=True)
        assert Bundle.open(copied) == before
        assert not (copied / "more.onnx").exists()
        assert leftovers(copied.parent) == []

    def test_through_a_link(self, copied: Path) -> None:
        link = copied.with_name("link.atrous")
        link.symlink_to(copied)
        self.add(Bundle.open(link), b"added")
        assert link.is_symlink()
        assert (copied / "more.onnx").read_bytes() == b"added"

    def test_an_engine_that_is_not_listed_goes(self, copied: Path) -> None:
        (copied / ENGINE_FOLDER).mkdir()
        (copied / ENGINE_FOLDER / "of_an_older_graph.plan").write_bytes(b"stale")
        self.add(Bundle.open(copied), b"added")
        assert list((copied / ENGINE_FOLDER).iterdir()) == []

    def test_a_bundle_that_vanished(self, copied: Path) -> None:
        bundle = Bundle.open(copied)
        shutil.rmtree(copied)
        with pytest.raises(BundleError, match=r"cannot copy .*tiny\.atrous to change it"):
            self.add(bundle, b"added")
        assert list(copied.parent.iterdir()) == []
