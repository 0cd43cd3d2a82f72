from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from atrous.exporter.engine.monitor import BuildWatch


def test_the_share_counts_nested_phases_and_never_falls() -> None:
    seen: list[tuple[str, float]] = []
    watch = BuildWatch(lambda *now: seen.append(now))
    watch.start("build", 2)
    watch.start("first", 4)
    assert watch.step("first", 1)
    watch.finish("first")
    assert watch.step("build", 0)
    watch.start("second", 2)
    watch.start("a part of it", 1)
    watch.step("a part of it", 0)
    watch.finish("a part of it")
    watch.step("second", 0)  # of which that was one
    watch.step("build", 1)
    assert seen == [
        ("build", 0.0), ("first", 0.0), ("first", 0.25), ("build", 0.5), ("second", 0.5), ("a part of it", 0.5),
        ("a part of it", 0.75), ("second", 0.75), ("build", 1.0),
    ]  # fmt: skip


def test_a_phase_without_steps() -> None:
    watch = BuildWatch(lambda *_: None)
    watch.start("nothing to do", 0)
    assert watch.step("nothing to do", 0)


def test_what_the_caller_raises_stops_the_build() -> None:
    calls = []

    def fail(*now: object) -> None:
        calls.append(now)
        raise ZeroDivisionError

    watch = BuildWatch(fail)
    watch.start("build", 2)
    assert not watch.step("build", 0)
    assert len(calls) == 1
    with pytest.raises(ZeroDivisionError):
        watch.reraise()


INTERRUPTED = """
import signal
import sys
import subprocess
from atrous.exporter.engine.monitor import BuildWatch

signal.signal(signal.SIGINT, signal.default_int_handler)
watch = BuildWatch(None)
with watch.stopping_on_ctrl_c():
    signal.raise_signal(signal.SIGINT)
    assert not watch.step("build", 0)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
try:
    watch.reraise()
except KeyboardInterrupt:
    print("kept")
"""


class TestCtrlC:
    def test_is_kept_until_the_builder_returns(self) -> None:
        """In a process of its own, whose signals no library that another test loaded has to do with."""
        done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == ("kept\n", 0), done.stderr

    def test_a_handler_of_the_application_stays(self) -> None:
        own = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with BuildWatch(None).stopping_on_ctrl_c():
                assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, own)

    def test_in_another_thread_there_are_no_signals(self) -> None:
        handlers = []

        def build() -> None:
            with BuildWatch(None).stopping_on_ctrl_c():
                handlers.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        assert handlers == [signal.default_int_handler]
