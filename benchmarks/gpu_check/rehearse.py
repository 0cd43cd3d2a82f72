"""Runs a script where no GPU is: a real library on a stand-in for the driver, which runs kernels in the emulator.

python benchmarks/gpu_check/rehearse.py benchmarks/gpu_check/check.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from emulator.build import stand_in


def main() -> int:
    """The script's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **stand_in(Path(folder)), "GPU_CHECK_REHEARSAL": "1"}
        return subprocess.run([sys.executable, *sys.argv[1:]], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
