"""One writer of a bundle at a time, with real processes that are killed, and readers that notice nothing."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest

import atrous
from atrous import bundle_folders, bundle_lock, files
from atrous.bundle import MANIFEST_FILE, Bundle, extend_bundle, stage_bundle
from atrous.errors import BundleError

#: Adds `name` to the bundle, over and over if told; says when it has the lock, and can dawdle with it.
WRITER = """
import sys, time
from atrous.bundle import Bundle, extend_bundle
path, name, seconds, times = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
for turn in range(times):
    with extend_bundle(Bundle.open(path)) as staged:
        print("has it", flush=True)
        (staged.path / name).write_bytes(b"%d" % turn * 10_000)
        time.sleep(seconds)
        staged.add(staged.artifact(name, kind="standalone", precision="fp32", provenance={}))
"""


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous"))


@pytest.fixture
def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem that cannot exchange two folders."""
    monkeypatch.setattr(bundle_folders, "exchange", lambda *_: False)


def start_writer(path: Path, name: str, *, seconds: float = 0.0, times: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(seconds), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lock(writer: subprocess.Popen[str]) -> None:
    assert writer.stdout is not None
    assert writer.stdout.readline() == "has it\n"


def kill(writer: subprocess.Popen[str]) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)


def artifact_files(path: Path) -> set[str]:
    return {artifact.file for artifact in Bundle.open(path).manifest.artifacts}


def beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry != path)


def add(path: Path, name: str) -> None:
    with extend_bundle(Bundle.open(path)) as staged:
        (staged.path / name).write_bytes(b"content")
        staged.add(staged.artifact(name, kind="standalone", precision="fp32", provenance={}))


class Reader:
    """Opens and loads a bundle until told to end; keeps what goes wrong, and how often nothing was there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[BaseException] = []
        self.absent = 0
        self.rounds = 0
        self._done = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._read, self._look)]

    @contextmanager
    def running(self) -> Iterator[Reader]:
        """Reads while the block runs."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in self._threads:
                thread.join()

    def _read(self) -> None:
        while not self._done.is_set():
            try:
                atrous.load(self.path, backend="onnxruntime")
                self.rounds += 1
            except BaseException as exc:
                self.problems.append(exc)

    def _look(self) -> None:
        manifest = self.path / MANIFEST_FILE
        while not self._done.is_set():
            self.absent += not manifest.exists()


@pytest.fixture
def reader(copied: Path) -> Iterator[Reader]:
    with Reader(copied).running() as reading:
        yield reading
    assert reading.problems == []
    assert reading.rounds > 0


class TestProcesses:
    def test_what_every_writer_adds_is_listed(self, copied: Path, reader: Reader) -> None:
        writers = [start_writer(copied, f"{index}.onnx", times=4) for index in range(4)]
        for writer in writers:
            _, errors = writer.communicate(timeout=120)
            assert writer.returncode == 0, errors
        assert artifact_files(copied) == {"model.fp32.onnx", "0.onnx", "1.onnx", "2.onnx", "3.onnx"}
        Bundle.open(copied).check()
        assert beside(copied) == []
        assert reader.absent == 0 or not can_exchange(copied.parent)

    def test_a_writer_that_is_killed(self, copied: Path, reader: Reader) -> None:
        """Wherever it is killed, the bundle is whole, and the next writer finds neither a lock nor leftovers."""
        moments = random.Random(0)
        for round_ in range(12):
            writer = start_writer(copied, f"killed{round_}.onnx", seconds=0.002, times=1000)
            wait_for_lock(writer)
            time.sleep(moments.uniform(0, 0.05))
            kill(writer)
            Bundle.open(copied).check()
        add(copied, "last.onnx")
        assert "last.onnx" in artifact_files(copied)
        assert beside(copied) == []
        assert reader.absent == 0 or not can_exchange(copied.parent)

    def test_a_killed_writer_holds_nobody_up(self, copied: Path) -> None:
        writer = start_writer(copied, "killed.onnx", seconds=600)
        wait_for_lock(writer)
        assert any(name.endswith(".lock") for name in beside(copied))
        kill(writer)
        before = time.monotonic()
        add(copied, "next.onnx")
        assert time.monotonic() - before < 30
        assert artifact_files(copied) == {"model.fp32.onnx", "next.onnx"}
        assert beside(copied) == []

    def test_the_holder_is_named(
        self, copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(bundle_lock, "MAX_WAIT_S", 0.3)
        monkeypatch.setattr(bundle_lock, "_PATIENCE_S", 0.1)
        writer = start_writer(copied, "slow.onnx", seconds=600)
        try:
            wait_for_lock(writer)
            with pytest.raises(BundleError, match=rf"still being changed by process {writer.pid} on .*Wait for it"):
                add(copied, "mine.onnx")
        finally:
            kill(writer)
        assert [record.getMessage().partition(" on ")[0] for record in caplog.records] == [
            f"waiting for process {writer.pid}"
        ]

    def test_a_new_bundle_waits_as_well(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        """Two that make the same bundle: the second one is refused, and does not replace the first."""
        script = (
            "import shutil, sys, time\n"
            "from atrous.bundle import stage_bundle\n"
            "with stage_bundle(sys.argv[2]) as staged:\n"
            "    print('has it', flush=True)\n"
            "    shutil.copytree(sys.argv[1], staged.path, dirs_exist_ok=True)\n"
            "    time.sleep(0.5)\n"
        )
        target = tmp_path / "new.atrous"
        command = [sys.executable, "-c", script, str(tiny_bundle.path), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            wait_for_lock(writer)
            with pytest.raises(BundleError, match="exists already"), stage_bundle(target):
                pytest.fail("must not start")
            assert writer.wait(timeout=60) == 0
        Bundle.open(target).check()
        assert beside(target) == []

    def test_a_forked_child_does_not_keep_the_lock(self, copied: Path) -> None:
        """A data loader's worker may outlive the writer that forked it."""
        script = (
            "import os, sys, time\n"
            "from atrous.bundle import Bundle, extend_bundle\n"
            "with extend_bundle(Bundle.open(sys.argv[1])) as staged:\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        time.sleep(600)\n"
            "    print(child, flush=True)\n"
            "    time.sleep(600)\n"
        )
        command = [sys.executable, "-c", script, str(copied)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            child = int(writer.stdout.readline())
            time.sleep(0.2)
            writer.kill()
            try:
                add(copied, "next.onnx")
            finally:
                os.kill(child, signal.SIGKILL)
        assert "next.onnx" in artifact_files(copied)


@needs.TENSORRT_RTX.importable("tensorrt_rtx")
@pytest.mark.slow
def test_fp16_and_an_engine_at_the_same_time(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_bundle.path, tmp_path / "tiny.atrous"))
    verbs = (["add-fp16"], ["build", "--precision", "fp32", "--sm", "89"])
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "atrous", verb, str(path), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for verb, *options in verbs
    ]
    with Reader(path).running() as reading:
        for writer in writers:
            output, _ = writer.communicate(timeout=600)
            assert writer.returncode == 0, output.decode()
    assert reading.problems == []
    files = artifact_files(path)
    assert {"model.fp32.onnx", "model.fp16.onnx"} < files
    assert [file for file in files if file.startswith("engines/")] == [
        f"engines/{plan.name}" for plan in (path / "engines").iterdir()
    ]
    assert len(files) == 3
    assert beside(path) == []


class TestThreads:
    @pytest.mark.usefixtures("reader")
    def test_what_every_thread_adds_is_listed(self, copied: Path) -> None:
        threads = [threading.Thread(target=add, args=(copied, f"{index}.onnx")) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert artifact_files(copied) == {"model.fp32.onnx", *(f"{index}.onnx" for index in range(8))}
        assert beside(copied) == []

    def test_a_thread_does_not_wait_for_itself(self, copied: Path) -> None:
        with extend_bundle(Bundle.open(copied)), pytest.raises(BundleError, match="this thread is changing the bundle"):
            add(copied, "inner.onnx")
        add(copied, "after.onnx")
        assert "after.onnx" in artifact_files(copied)

    def test_through_a_link_it_is_the_same_bundle(self, copied: Path) -> None:
        link = copied.with_name("link.atrous")
        link.symlink_to(copied)
        with extend_bundle(Bundle.open(copied)), pytest.raises(BundleError, match="this thread is changing the bundle"):
            add(link, "inner.onnx")

    def test_two_threads_with_two_bundles_in_opposite_order(self, copied: Path) -> None:
        """Neither waits for the other forever: one at least is refused, and says why."""
        other = Path(shutil.copytree(copied, copied.with_name("other.atrous")))
        both_hold = threading.Barrier(2)
        refused: list[BundleError] = []

        def change(first: Path, second: Path) -> None:
            with extend_bundle(Bundle.open(first)):
                both_hold.wait(timeout=30)
                try:
                    add(second, "inner.onnx")
                except BundleError as exc:
                    refused.append(exc)

        threads = [threading.Thread(target=change, args=pair) for pair in ((copied, other), (other, copied))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        assert refused
        assert all("Change one bundle after the other" in str(exc) for exc in refused)

    def test_two_bundles_one_inside_the_change_of_the_other(self, copied: Path) -> None:
        other = Path(shutil.copytree(copied, copied.with_name("other.atrous")))
        with extend_bundle(Bundle.open(copied)):
            add(other, "inner.onnx")
        assert "inner.onnx" in artifact_files(other)


class TestFilesystems:
    @pytest.mark.usefixtures("two_steps", "reader")
    def test_one_without_exchange(self, copied: Path) -> None:
        """Readers wait while there is nothing at the path."""
        for index in range(30):
            add(copied, f"{index}.onnx")
        assert len(artifact_files(copied)) == 31
        assert beside(copied) == []

    def test_a_writer_killed_between_the_two_steps(self, copied: Path) -> None:
        aside = bundle_folders.hidden_beside(copied, kind="old.")
        aside.mkdir()
        copied.rename(aside / copied.name)
        with pytest.raises(
            BundleError, match=r"A writer was killed while it replaced the bundle, which is at .*move it"
        ):
            Bundle.open(copied)
        with pytest.raises(BundleError, match="exists already"), stage_bundle(copied):
            pytest.fail("must not start")
        Bundle.open(copied).check()
        assert beside(copied) == []

    def test_one_without_locks(
        self, copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def flock(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(bundle_lock.fcntl, "flock", flock)
        leftover = bundle_folders.hidden_beside(copied)
        leftover.mkdir()
        add(copied, "more.onnx")
        assert "more.onnx" in artifact_files(copied)
        assert beside(copied) == [leftover.name]  # it may be in use
        assert "knows no locks" in caplog.text

    def test_a_kernel_without_the_call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "_renameat2", lambda: None)
        assert not files.exchange(tmp_path / "a", tmp_path / "b")

    def test_an_exchange_of_what_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        if can_exchange(tmp_path):
            with pytest.raises(FileNotFoundError):
                files.exchange(tmp_path / "a", tmp_path / "b")


def can_exchange(folder: Path) -> bool:
    first, second = folder / ".first", folder / ".second"
    first.mkdir()
    second.mkdir()
    try:
        return files.exchange(first, second)
    finally:
        first.rmdir()
        second.rmdir()


class TestSource:
    def test_a_source_that_was_replaced(self, copied: Path) -> None:
        bundle = Bundle.open(copied)
        source = bundle.manifest.artifacts[0]
        with extend_bundle(bundle) as staged:
            staged.write(source.file, b"another graph")
            staged.add(staged.artifact(source.file, kind="onnx", precision="fp32", provenance={}))
        with (
            pytest.raises(BundleError, match=r"model\.fp32\.onnx was replaced, .* while something was made from it"),
            extend_bundle(bundle, source=source),
        ):
            pytest.fail("must not start")
        with pytest.raises(BundleError, match="was changed by another writer since it was opened"):
            bundle.read(source)
        assert not bundle.is_current
        assert bundle.reopen() == Bundle.open(copied)

    @pytest.mark.parametrize("change", ["mean", "size", "classes"])
    def test_the_same_graph_for_another_input_or_output(self, copied: Path, change: str) -> None:
        """Its INT8 ranges would be those of other pixels."""
        bundle = Bundle.open(copied)
        manifest = bundle.manifest
        inputs, classes = manifest.input, manifest.classes
        if change == "mean":
            inputs = dataclasses.replace(inputs, mean=(0.5, 0.5, 0.5))
        elif change == "size":
            inputs = dataclasses.replace(inputs, size=dataclasses.replace(inputs.size, opt=inputs.size.min))
        else:
            classes = (dataclasses.replace(classes[0], name="renamed"), *classes[1:])
        with extend_bundle(bundle) as staged:
            staged.write_manifest(dataclasses.replace(manifest, input=inputs, classes=classes))
        with (
            pytest.raises(BundleError, match="or its preprocessing or classes, while something was made from it"),
            extend_bundle(bundle, source=manifest.artifacts[0]),
        ):
            pytest.fail("must not start")
