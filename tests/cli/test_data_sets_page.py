"""The examples for queues in docs/data-sets.md."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import needs
from command_line import Command

PAGE = (Path(__file__).parents[2] / "docs" / "data-sets.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def check_arguments(atrous: Command, command: str, variables: dict[str, str]) -> None:
    """The command is one that `atrous` understands: it fails on the bundle, which is not there."""
    for name, value in variables.items():
        command = command.replace(name, value)
    arguments = shlex.split(command)[1:]
    outcome = atrous(*arguments)
    assert (outcome.code, "no such file, folder or match: /data/photos" in outcome.err) == (1, True), outcome.err


def test_slurm(atrous: Command) -> None:
    script = block("bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    array = re.search(r"--array=1-(\d+)", script)
    assert array is not None
    command = script[script.index("atrous batch") :].replace("\\\n", "")
    check_arguments(atrous, command, {"$SLURM_ARRAY_TASK_ID": array[1], "$SLURM_CPUS_PER_TASK": "4"})


def test_kubernetes(atrous: Command) -> None:
    yaml = needs.YAML.load("yaml")
    job = yaml.safe_load(block("yaml"))
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (script,) = container["args"]
    subprocess.run(["sh", "-n", "-c", script], check=True)
    last = str(job["spec"]["completions"])
    check_arguments(atrous, script.removeprefix("exec "), {"$((JOB_COMPLETION_INDEX + 1))": last})
