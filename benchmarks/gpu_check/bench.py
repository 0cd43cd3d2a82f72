"""How fast the GPU code is, beside its peers, in one go; one JSON file. `check.py` is what shows that it is right.

Each step has a time limit, and what it has printed by then is kept. The most wanted come first.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from typing import Any

from steps import Budget, rows_of, run_steps

#: Script → the seconds that it may take at most; those that end early leave theirs to the later ones.
LIMITS_S = {
    "bandwidth": 20.0,
    "crf": 120.0,
    "networks": 90.0,
    "engines": 110.0,
    "torch_peers": 45.0,
    "ncu": 85.0,
    "torch_compiled": 90.0,
}
NEED_TORCH = ("torch_peers", "torch_compiled")


def main() -> int:
    """Runs all steps and writes the report."""
    budget = Budget()

    def step(name: str) -> dict[str, Any]:
        if name in NEED_TORCH and find_spec("torch") is None:
            return {"status": "not run", "output": "PyTorch is not installed in the Python that this was set up from"}
        return rows_of(f"{name}.py", budget.left(LIMITS_S[name]))

    return run_steps("bench", {name: partial(step, name) for name in LIMITS_S})


if __name__ == "__main__":
    sys.exit(main())
