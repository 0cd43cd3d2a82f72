"""Files of weights: what is found in them, what is refused and how it is said."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atrous.errors import CheckpointError
from atrous.exporter.weight_files import is_exported_program, is_torchscript, read_weights


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        "backbone.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "classifier.weight": torch.randn(5, 4, 1, 1, generator=generator),
        "classifier.bias": torch.randn(5, generator=generator),
        "norm.num_batches_tracked": torch.tensor(3),
    }


def weights_of(path):
    return read_weights(path).weights


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def saved(stored, path, **kwargs):
    torch.save(stored, path, **kwargs)
    return path


def test_reads_safetensors_and_both_torch_formats(weights, tmp_path):
    save_file(weights, tmp_path / "a.safetensors")
    for path in (
        tmp_path / "a.safetensors",
        saved(weights, tmp_path / "a.pth"),
        saved(weights, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False),
    ):
        assert same(weights_of(path), weights)
        assert same(weights_of(str(path)), weights)


def test_the_content_decides_not_the_name(weights, tmp_path):
    save_file(weights, tmp_path / "weights.pth")
    saved(weights, tmp_path / "weights.safetensors")
    assert same(weights_of(tmp_path / "weights.pth"), weights)
    assert same(weights_of(tmp_path / "weights.safetensors"), weights)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "ema", "model_ema", "ema_state_dict"])
def test_takes_the_state_dict_out_of_a_training_checkpoint(weights, tmp_path, wrapper):
    stored = {wrapper: weights, "epoch": 7, "optimizer": {"lr": 0.1}}
    assert same(weights_of(saved(stored, tmp_path / "a.pt")), weights)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module."])
def test_removes_prefixes_of_training_wrappers(weights, tmp_path, prefix):
    stored = {"state_dict": {prefix + key: value for key, value in weights.items()}}
    assert same(weights_of(saved(stored, tmp_path / "a.pt")), weights)


def test_keeps_a_prefix_that_only_some_keys_have(weights, tmp_path):
    stored = {"module.extra": torch.ones(1), **weights}
    assert weights_of(saved(stored, tmp_path / "a.pt")).keys() == stored.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_becomes_float32_and_integers_stay(weights, tmp_path, dtype):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
    save_file(stored, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.safetensors", saved(stored, tmp_path / "a.pt")):
        loaded = weights_of(path)
        assert loaded["norm.num_batches_tracked"].dtype == torch.int64
        assert loaded["classifier.bias"].dtype == torch.float32
        assert torch.equal(loaded["classifier.bias"], stored["classifier.bias"].float())


class _Touch:
    """Unpickled, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class _Setting:
    """Unpickled by a careless reader, it would set attributes of a function that rebuilds tensors."""

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (), (None, {"__defaults__": (None,) * 9})


def test_code_in_a_pickle_is_not_run_and_the_weights_are_read(weights, tmp_path):
    proof = tmp_path / "ran"
    for hook in (_Touch(proof), subprocess.Popen, os.system, [_Touch(proof)] * 2):
        stored = {"state_dict": weights, "hook": hook}
        torch.save(stored, tmp_path / "zip.pt")
        torch.save(stored, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
        for name in ("zip.pt", "legacy.pt"):
            found = read_weights(tmp_path / name)
            assert same(found.weights, weights)
            assert set(found.dropped) == {"hook"}
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Touch(proof), protocol=2))
    with pytest.raises(CheckpointError, match=r"holds a (__builtin__|builtins)\.getattr; expected a state dict"):
        weights_of(tmp_path / "evil.pth")
    assert not proof.exists()


def test_a_pickle_cannot_change_the_functions_that_it_calls(weights, tmp_path):
    before = torch._utils._rebuild_tensor_v2.__defaults__
    for legacy in (False, True):
        path = saved({"w": weights, "x": _Setting()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            weights_of(path)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_a_module_takes_the_state_dict_of_its_children(tmp_path):
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    module.register_buffer("scratch", torch.ones(2), persistent=False)
    for stored in (module, {"model": module, "epoch": 3}):
        assert same(weights_of(saved(stored, tmp_path / "model.pt")), module.state_dict())


class _Mode(Enum):
    TRAIN = 1


class _Config(dict):
    """A mapping of its own, as configuration libraries have."""


@pytest.mark.parametrize(
    "extra",
    [
        {"args": argparse.Namespace(lr=0.1, device=torch.device("cpu"))},
        {"best_pred": np.float64(0.7)},
        {"best_score": 0.7, "metrics": np.array([0.1, 0.2])},
        {"mode": _Mode.TRAIN, "where": Path("runs"), "config": _Config(lr=0.1)},
        {"names": np.array(["road", "car"], dtype=object), "seen": {1, 2}, "dtype": torch.float16},
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_training_scripts_keep_beside_the_weights(weights, tmp_path, extra, protocol):
    for key in ("model", "state_dict", "model_state", "network"):
        stored = {key: OrderedDict(weights), "optimizer": {"state": {0: {"exp_avg": torch.ones(900)}}}, **extra}
        found = read_weights(saved(stored, tmp_path / "a.pth", pickle_protocol=protocol))
        assert same(found.weights, weights)
        assert set(found.dropped) == {"optimizer", *extra}


def test_the_prefix_that_most_keys_have_is_removed_and_the_rest_named(weights, tmp_path):
    stored = {"mean": torch.ones(3), "std": torch.ones(3)} | {f"model.{key}": value for key, value in weights.items()}
    found = read_weights(saved({"state_dict": stored, "epoch": 3}, tmp_path / "lightning.ckpt"))
    assert same(found.weights, weights)
    assert found.dropped == {
        "epoch": "not a tensor",
        "mean": "outside of model, which holds the network",
        "std": "outside of model, which holds the network",
    }


def test_weights_are_taken_before_their_average_and_this_is_said(weights, tmp_path):
    average = {key: torch.zeros_like(value) for key, value in weights.items()}
    stored = {"ema": average, "state_dict": weights}
    found = read_weights(saved(stored, tmp_path / "a.pth"))
    assert same(found.weights, weights)
    assert found.dropped == {"ema": "other weights; those of state_dict are taken"}


def test_weights_at_any_depth(weights, tmp_path):
    stored = {"checkpoint": {"nets": {"student": dict(weights)}}}
    stored["loop"] = stored
    assert same(weights_of(saved(stored, tmp_path / "a.pth")), weights)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_a_plain_pickle(weights, tmp_path, protocol):
    arrays = {key: value.numpy() for key, value in weights.items()}
    arrays["classifier.weight"] = np.asfortranarray(arrays["classifier.weight"]).astype(">f4")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays, "by": "hand"}, protocol=protocol))
    assert same(weights_of(tmp_path / "model.pkl"), weights)


def test_tensors_of_a_plain_pickle(weights, tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(weights, protocol=4))
    assert same(weights_of(tmp_path / "model.pkl"), weights)


def test_parameters_views_and_tensors_with_attributes(weights, tmp_path):
    tagged = nn.Parameter(weights["classifier.bias"].clone())
    tagged.origin = argparse.Namespace()
    stored = {"p": nn.Parameter(torch.ones(2)), "view": torch.arange(12.0).reshape(3, 4).T[1:], "tagged": tagged}
    loaded = weights_of(saved(stored, tmp_path / "a.pth"))
    assert same(loaded, {key: value.detach() for key, value in stored.items()})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_and_exported_programs(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    script, program = tmp_path / "script.pt", tmp_path / "program.pt2"
    torch.jit.save(torch.jit.trace(module, torch.ones(1, 3, 8, 8)), script)
    torch.export.save(torch.export.export(module, (torch.ones(1, 3, 8, 8),)), program)
    assert (is_torchscript(script), is_exported_program(script)) == (True, False)
    assert (is_torchscript(program), is_exported_program(program)) == (False, True)
    assert same(weights_of(script), module.state_dict())
    with pytest.raises(CheckpointError, match=r"is a program of torch\.export, not weights"):
        weights_of(program)


def shards(folder, weights, *, absent=()):
    parts = {"model-1.safetensors": list(weights)[:2], "model-2.safetensors": list(weights)[2:]}
    for file, keys in parts.items():
        if file not in absent:
            save_file({key: weights[key] for key in keys}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: file for file, keys in parts.items() for key in keys}}))
    return index


def test_shards_and_folders_of_transformers(weights, tmp_path):
    assert same(weights_of(shards(tmp_path, weights)), weights)
    (tmp_path / "config.json").write_text('{"num_labels": 5}')
    found = read_weights(tmp_path)
    assert same(found.weights, weights)
    assert found.config == {"num_labels": 5}
    whole = tmp_path / "whole"
    whole.mkdir()
    torch.save(weights, whole / "pytorch_model.bin")
    assert same(weights_of(whole), weights)


def test_a_shard_that_is_missing_or_lacks_tensors(weights, tmp_path):
    index = shards(tmp_path, weights, absent=["model-2.safetensors"])
    with pytest.raises(CheckpointError, match=r"needs model-2\.safetensors, which is not there: 2 of 4 tensors"):
        weights_of(index)
    save_file({"classifier.bias": weights["classifier.bias"]}, tmp_path / "model-2.safetensors")
    with pytest.raises(CheckpointError, match=r"names 1 tensors that its files lack: norm\.num"):
        weights_of(tmp_path)
    index.write_text(json.dumps({"weight_map": {"w": "../model-1.safetensors"}}))
    with pytest.raises(CheckpointError, match="expected files beside the index"):
        weights_of(index)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([torch.ones(1)], "holds a list; expected a state dict"),
        (torch.ones(1), "holds a Tensor; expected a state dict"),
        (argparse.Namespace(), r"holds a argparse\.Namespace; expected a state dict"),
        ({}, "holds no state dict: no entries"),
        ({"epoch": 3, "loss": 0.5}, "holds no tensors under names, at any depth: epoch, loss"),
        ({"optimizer": {"w": torch.ones(1)}}, "holds no tensors under names, at any depth: optimizer"),
        ({3: torch.ones(1)}, "holds no tensors under names, at any depth: 3"),
    ],
)
def test_plain_data_that_is_no_state_dict_is_named(tmp_path, stored, message):
    with pytest.raises(CheckpointError, match=message):
        weights_of(saved(stored, tmp_path / "a.pt"))


def test_an_archive_that_unpacks_to_more_than_it_is(weights, tmp_path):
    torch.save({**weights, "zeros": torch.zeros(1 << 22)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "bomb.pt").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"unpack to .* which torch\.save never writes"):
        weights_of(tmp_path / "bomb.pt")


def test_a_tensor_that_claims_more_than_is_stored(tmp_path):
    wide = torch.ones(1).expand(1 << 40)
    with pytest.raises(CheckpointError, match="does not fit in its 1 values"):
        weights_of(saved({"w": wide}, tmp_path / "a.pt"))


def test_references_that_double_at_each_level(weights, tmp_path):
    nested: dict[str, object] = {"w": torch.ones(1)}
    for _ in range(60):
        nested = {"left": nested, "right": nested}
    assert weights_of(saved({"state_dict": weights, "bomb": nested}, tmp_path / "a.pt")).keys() == weights.keys()


@pytest.mark.parametrize("number", [b"r\xff\xff\xff\x7f", b"p2147483647\n", b"q\xff"])
def test_a_number_of_an_object_for_which_a_table_would_take_all_memory(weights, tmp_path, number):
    (tmp_path / "bomb.pkl").write_bytes(b"\x80\x02]" + number + b".")
    with pytest.raises(CheckpointError, match="is numbered where there are not as many"):
        weights_of(tmp_path / "bomb.pkl")
    with zipfile.ZipFile(saved(weights, tmp_path / "a.pt")) as plain, zipfile.ZipFile(tmp_path / "b.pt", "w") as bomb:
        for entry in plain.infolist():
            content = b"\x80\x02]" + number + b"." if entry.filename.endswith("data.pkl") else plain.read(entry)
            bomb.writestr(entry.filename, content)
    with pytest.raises(CheckpointError, match="is numbered where there are not as many"):
        weights_of(tmp_path / "b.pt")


def test_half_a_shard(weights, tmp_path):
    index = shards(tmp_path, weights)
    shard = tmp_path / "model-2.safetensors"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors is truncated or damaged .* download it again"):
        weights_of(index)


def test_random_changes_of_a_pickle_run_nothing_and_raise_our_error(weights, tmp_path):
    path = saved(
        {"state_dict": weights, "args": argparse.Namespace(lr=1)},
        tmp_path / "a.pt",
        _use_new_zipfile_serialization=False,
    )
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), 3):
            changed[place] = generator.integers(0, 256)
        path.write_bytes(changed)
        try:
            outcomes.add(type(weights_of(path)))
        except CheckpointError as exc:
            outcomes.add(type(exc))
    assert outcomes == {dict, CheckpointError}


def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "empty.pth").touch()
    (tmp_path / "photo.pth").write_bytes(b"\xff\xd8\xff\xe0 not weights at all")
    for path, message in [
        (tmp_path / "none.pth", "cannot read the checkpoint .*none.pth: No such file"),
        (tmp_path, "is a directory without weights; expected a weights file"),
        (tmp_path / "empty.pth", r"is empty; copy or download it again"),
        (tmp_path / "photo.pth", "is neither a safetensors file nor a PyTorch checkpoint"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            weights_of(path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(weights, tmp_path, kind, share):
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        saved(weights, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="is truncated or damaged") as caught:
        weights_of(path)
    assert str(path) in str(caught.value)
