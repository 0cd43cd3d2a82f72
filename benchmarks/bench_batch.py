"""`atrous batch` over many small images: what the ledger costs, what a killed run loses, and what memory does.

    python benchmarks/bench_batch.py

A network of a few kilobytes labels images of 64×64, so that almost everything that is measured is the run itself.
Checks: a run that was killed at random moments leaves the files of an undisturbed one. Results go to
benchmarks/results/batch.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, summarize, write_report
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tiny_graphs import color_layers, make_bundle

from atrous.batch import Shard
from atrous.batch.ledger import Entry, Ledger
from atrous.batch.outputs import LABELS, Output, OutputFolder
from atrous.exporter.sizes import DynamicSize


def make_images(folder: Path, count: int) -> Path:
    """Images of 64×64 in folders of a thousand."""
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{index // 1000:02}" / f"{index:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(path)
    return folder


def time_ledger(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds that a line takes, waiting for the disk spread over the lines, and a synced file of 5 kB."""
    content = np.random.default_rng(0).bytes(5000)
    digest = hashlib.sha256(content).hexdigest()
    classes = dict.fromkeys(range(11), 1 / 11)
    timings = dict.fromkeys(("read", "preprocess", "inference", "postprocess", "write"), 1.0)
    folder.mkdir()
    ledger = Ledger(folder, {"sha256": digest}, Shard(), resume=False)
    files, lines = [], []
    for index in range(count):
        start = time.perf_counter()
        OutputFolder(folder).write(LABELS, f"{index:05}", lambda file: file.write(content))
        files.append((time.perf_counter() - start) * 1e3)
        output = Output("labels", f"labels/{index:05}.png", len(content), digest)
        entry = Entry(f"{index:05}", f"{index:05}.png", (360, 480), (output,), classes, timings)
        start = time.perf_counter()
        ledger.add(entry)
        lines.append((time.perf_counter() - start) * 1e3)
    start = time.perf_counter()
    ledger.sync()
    lines[-1] += (time.perf_counter() - start) * 1e3
    ledger.close()
    return {"lines": count, "mean_ms": round(float(np.mean(lines)), 4), **summarize(lines), "file": summarize(files)}


def command(bundle: Path, images: Path, out: Path) -> list[str]:
    """A run that goes on with what is there."""
    options = ["--resume", "--json", "--backend", "onnxruntime", "--threads", "1"]
    return [sys.executable, "-m", "atrous", "batch", str(bundle), str(images), "--out", str(out), *options]


def results(folder: Path) -> dict[str, str]:
    """Relative path → hash of everything but the ledger."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "ledger.jsonl")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_runs(bundle: Path, images: Path, folder: Path, kills: int) -> dict[str, Any]:
    """Kill a run again and again, each time after a random number of images more, and compare in the end."""
    start = time.monotonic()
    subprocess.run(command(bundle, images, folder / "whole"), check=True, capture_output=True)
    print(f"undisturbed: {time.monotonic() - start:.1f} s")
    expected, out = results(folder / "whole"), folder / "killed"
    rng, ledger = random.Random(0), out / "ledger.jsonl"
    moments, done = [], 0
    for number in range(kills):
        least = done + rng.randint(1, max(1, 2 * (len(expected) - done) // (kills - number + 1)))
        with subprocess.Popen(command(bundle, images, out), stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not (ledger.exists() and ledger.read_bytes().count(b"\n") > least):
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02))
            process.kill()
        done = ledger.read_bytes().count(b"\n") - 1
        moments.append(done)
        print(f"killed with {done} of {len(expected)} done")
    last = subprocess.run(command(bundle, images, out), check=True, capture_output=True)
    lines = [json.loads(line)["name"] for line in ledger.read_text().splitlines()[1:]]
    assert results(out) == expected, "a killed run left other files"
    assert len(set(lines)) == len(lines) == len(expected), "an image was run twice, or never"
    assert json.loads(last.stdout)["done_before"] == done
    return {"images": len(expected), "kills": kills, "done_at_each": moments, "equal": True, "run_twice": 0}


def watch_memory(bundle: Path, images: Path, out: Path) -> dict[str, Any]:
    """Resident memory of a run by the images that are done, in MiB."""
    samples: dict[int, float] = {}
    ledger = out / "ledger.jsonl"
    start = time.monotonic()
    with subprocess.Popen(command(bundle, images, out), stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if ledger.exists():
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1] or 0)
                samples[ledger.read_bytes().count(b"\n") - 1] = pages * 4096 / 2**20
            time.sleep(0.2)
        report = json.loads(process.stdout.read()) if process.stdout else {}
    print(f"{report['done']} images in {time.monotonic() - start:.1f} s")
    counts = sorted(done for done, size in samples.items() if size)
    at = {
        str(mark): round(samples[min(counts, key=lambda done: abs(done - mark))], 1) for mark in (500, 2500, 5000, 9900)
    }
    return {"images": report["done"], "images_per_s": report["images_per_s"], "mib_at": at}


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where files are written; by default a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "batch.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sizes = DynamicSize((16, 16), (64, 64), (256, 256), multiple=8)
        bundle = make_bundle(folder / "color.atrous", color_layers(8), sizes=sizes).path
        ledger = time_ledger(folder / "ledger", 2000)
        print(f"ledger: {ledger}")
        kills = kill_runs(bundle, make_images(folder / "few", 1500), folder, options.kills)
        memory = watch_memory(bundle, make_images(folder / "many", options.images), folder / "out")
        print(f"memory: {memory}")
    write_report(options.out, packages=["numpy", "onnxruntime", "pillow"], ledger=ledger, kills=kills, memory=memory)


if __name__ == "__main__":
    main()
