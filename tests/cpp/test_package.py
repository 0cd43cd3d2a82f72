"""The library as others get it: installed, found, linked; small, and with no symbols but its interface."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import needs
import numpy as np
import pytest
from cpp_library import PATH, ROOT, SOURCE, dependencies, run
from PIL import Image

import atrous

MAX_STRIPPED_BYTES = 5 << 20
BLOCK = re.compile(r"^```cpp\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def first_program(page: str) -> str | None:
    found = BLOCK.search((ROOT / page).read_text(encoding="utf-8"))
    return found[1] if found else None


@pytest.fixture(scope="module")
def prefix(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the release is installed."""
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", release, "--prefix", prefix, cwd=release)
    return prefix


@pytest.fixture(scope="module")
def examples(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, built against what is installed and nothing else."""
    if not Path("/usr/include/png.h").exists():
        needs.LIBPNG.skip()
    folder = tmp_path_factory.mktemp("examples")
    source = ROOT / "examples" / "cpp"
    run("cmake", "-G", "Ninja", "-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}", cwd=folder)
    run("cmake", "--build", folder, cwd=folder)
    return folder


def test_only_the_interface_is_exported(prefix):
    (library,) = prefix.glob("lib*/**/libatrous.so")
    header = (SOURCE / "include" / "atrous" / "atrous.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^ATROUS_API [^(]*?(atrous_\w+)\(", header, re.MULTILINE))
    listing = run("nm", "-D", "--defined-only", library, cwd=prefix)
    exported = {line.split()[2].partition("@")[0] for line in listing.splitlines()}
    assert exported - {"ATROUS_1"} == declared


def test_the_soname_is_the_abi(prefix, library):
    (installed,) = prefix.glob("lib*/**/libatrous.so")
    dynamic = run("readelf", "-d", installed, cwd=prefix)
    assert f"[libatrous.so.{library.c.atrous_abi_version()}]" in dynamic


def test_it_is_small(prefix, tmp_path):
    (library,) = prefix.glob("lib*/**/libatrous.so")
    stripped = tmp_path / "stripped.so"
    run("strip", "-o", stripped, library.resolve(), cwd=tmp_path)
    assert stripped.stat().st_size < MAX_STRIPPED_BYTES


def test_installed_files_name_no_source(prefix):
    texts = [path for path in prefix.rglob("*") if path.suffix in (".h", ".hpp", ".cmake", ".pc")]
    assert len(texts) >= 6
    for path in texts:
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("page", ["docs/cpp.md", "README.md"])
def test_documented_program_compiles_and_runs(prefix, demo_bundle, tmp_path, page):
    program = first_program(page)
    if program is None:
        pytest.skip(f"{page} has no C++ program")
    (tmp_path / "main.cpp").write_text(program, encoding="utf-8")
    (package,) = prefix.glob("lib*/**/pkgconfig")
    pkg_config = shutil.which("pkg-config")
    if pkg_config is not None:
        command = ["env", f"PKG_CONFIG_PATH={package}", pkg_config, "--cflags", "--libs", "atrous"]
        flags = run(*command, cwd=tmp_path).split()
    else:
        flags = [f"-I{prefix / 'include'}", f"-L{package.parent}", "-latrous"]
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    run("g++", *strict, "main.cpp", *flags, f"-Wl,-rpath,{package.parent}", "-o", "program", cwd=tmp_path)
    names = {entry.name for entry in atrous.Bundle.open(demo_bundle).manifest.classes}
    assert run("./program", demo_bundle, cwd=tmp_path).strip() in names
    failed = subprocess.run(["./program", "absent.atrous"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("ATROUS_ERROR_BUNDLE: absent.atrous is not an atrous bundle")


@pytest.mark.parametrize("crf", [False, True], ids=["plain", "crf"])
def test_segment_image_draws_what_python_draws(examples, demo_bundle, photo, tmp_path, crf):
    Image.fromarray(photo).save(tmp_path / "in.png")
    options = ["--crf"] if crf else []
    printed = run(examples / "segment_image", demo_bundle, "in.png", "out.png", *options, cwd=tmp_path)
    assert "ms in openvino" in printed
    expected = atrous.load(demo_bundle, backend="openvino", crf=crf)(photo).overlay()
    with Image.open(tmp_path / "out.png") as picture:
        assert (np.asarray(picture) == np.asarray(expected)).all()


def test_segment_image_says_what_is_wrong(examples, demo_bundle, tmp_path):
    for arguments, status, words in (
        ([], 2, "usage"),
        (["absent.atrous", "in.png", "out.png"], 1, "not an atrous bundle"),
        ([demo_bundle, "absent.png", "out.png"], 1, "absent.png"),
    ):
        done = subprocess.run([examples / "segment_image", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status
        assert words in done.stderr


def test_camera_loop_reports_latency(examples, color_bundle, tmp_path, rng):
    for index, size in enumerate([(64, 64), (64, 64), (48, 80)]):
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    printed = run(examples / "camera_loop", color_bundle.path, tmp_path, "4", cwd=tmp_path)
    assert re.fullmatch(r"12 frames, [\d.]+ a second; latency ms: p50 [\d.]+, p90 .*, p99 .*, max .*\n", printed)


def test_without_openvino_the_reason_is_given(tmp_path):
    hidden = "-DCMAKE_DISABLE_FIND_PACKAGE_OpenVINO=ON"
    command = ["cmake", "-S", SOURCE, "-B", tmp_path, *dependencies(), "-DOpenVINO_DIR=/nowhere", hidden]
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert "pip install openvino" in done.stderr
