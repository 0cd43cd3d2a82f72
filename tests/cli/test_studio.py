from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Command
from http_servers import PATIENCE_S, ask

from atrous.bundle import Bundle


@pytest.mark.slow
def test_opens_the_page_and_ends_quietly(tiny_bundle: Bundle, tmp_path: Path) -> None:
    opened = tmp_path / "opened.txt"
    token = tmp_path / "token.txt"
    token.write_text("a-token-of-the-studio\n")
    command = [sys.executable, "-m", "atrous", "studio", tiny_bundle.path, "--port=0", f"--token-file={token}"]
    script = f"{shlex.quote(sys.executable)} -c 'import sys; open(sys.argv[1], \"w\").write(sys.argv[2])' {opened} %s"
    environment = os.environ | {"BROWSER": script}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        found = re.fullmatch(
            r"the studio of (.*) is at (http://127\.0\.0\.1:(\d+)/#token=a-token-of-the-studio)\n", said
        )
        assert found, said + process.stderr.read()
        assert found[1] == str(tiny_bundle.path)
        port = int(found[3])
        page = ask(port, "GET", "/")
        assert (page.status, b"atrous studio" in page.body) == (200, True)
        assert ask(port, "GET", "/studio/api/config").status == 401
        config = ask(port, "GET", "/studio/api/config", Authorization="Bearer a-token-of-the-studio").json()
        assert config["precisions"] == ["fp32"]
        end = time.monotonic() + PATIENCE_S
        while not (opened.exists() and opened.read_text()):
            assert time.monotonic() < end, "no browser was opened"
            time.sleep(0.02)
        assert opened.read_text() == found[2]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")


def test_of_no_bundle(atrous: Command, tmp_path: Path) -> None:
    outcome = atrous("studio", tmp_path / "none.atrous", "--no-open", "--port", 0)
    assert outcome.code == 1
    assert "is not an atrous bundle" in outcome.err
