"""What of `make gpu-bench` can be tried without a GPU."""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from emulator.emulated_device import EmulatedDevice, EmulatedModule, EmulatedStream
from gpu_scripts import FOLDER, script
from needs import needs_no_driver
from standins.onnx_device_backend import OnnxDeviceBackend
from tiny_networks import TinyDeepLab

from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import Buffer, KernelSource, Launch

pytestmark = pytest.mark.slow  # in sum


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The CRF's benchmark in small, with one frame instead of dozens."""
    monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
    return script(monkeypatch, "crf")


class TestCrf:
    @pytest.mark.parametrize("storage", ["fp32", "unorm16"])
    def test_a_row_describes_itself(self, bench, storage):
        scene = bench.Scene(14, 22, 5, "P1", "textured")
        expected = bench.DenseCRF(bench.SETS["P1"])(*bench.make(scene))
        row = bench.gpu_row(EmulatedDevice(), scene, storage, 3000.0, expected)
        assert row["max_abs_difference"] < 1e-2
        assert row["vertices"]["bilateral"] > 0
        assert row["memory_bytes"] > 0
        assert row["launches"] > 150
        for part in ("frame", "construction"):
            assert {"graph", "no_graph", "graph_alone"} == row[part].keys()
        assert row["least_bytes_per_iteration"] < row["asked_bytes_per_iteration"]
        assert "target_ms" not in row, "no target for this size"

    def test_targets_come_first_and_the_slow_peers_last(self, monkeypatch):
        bench = script(monkeypatch, "crf")
        assert [(s.width, s.texture) for s in bench.TARGETS] == [
            (513, "textured"), (513, "plain"), (2048, "textured"), (2048, "plain"),
        ]  # fmt: skip
        assert {s.parameters for s in bench.OTHERS} == {"P2", "P3"}
        assert {width for width, _ in bench.TARGETS_MS} == {513, 2048}

    def test_a_wrong_result_is_not_timed(self, bench):
        scene = bench.TARGETS[0]
        maps, picture = bench.make(scene)
        with pytest.raises(bench.WrongResultError, match="wrong result"):
            bench.check(maps, bench.DenseCRF()(maps, picture), "fp32")
        with pytest.raises(bench.WrongResultError, match="wrong result"):
            bench.check(np.full_like(maps, np.nan), maps, "unorm16")

    def test_targets_are_judged(self, bench):
        scene = bench.Scene(513, 513, 21, "P1", "plain")
        met = {"target_ms": 4.0, "target_met": True, "stretch_ms": 2.5, "stretch_met": False}
        assert bench._against_target(scene, "unorm16", 3.9) == met
        assert bench._against_target(bench.Scene(1024, 2048, 19, "P1", "plain"), "fp32", 35.1)["target_met"] is False

    def test_peers_get_the_same_input_and_their_labels_are_compared(self, bench):
        ours, theirs = bench.peer_rows(bench.TARGETS[0])
        assert ours["frame"]["median_ms"] > 0
        assert theirs["peer"] == "pydensecrf"
        assert "flips" not in ours, "compared with nothing"
        assert theirs.get("flips") == 0 or theirs["outcome"].startswith("not run: ")


class _Logging(EmulatedDevice):
    """Keeps the names of launches and fills, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def load(self, source: KernelSource) -> _LoggingModule:
        return _LoggingModule(self, super().load(source))

    def fill(self, buffer: Buffer, word: int, stream: EmulatedStream) -> None:
        self.log.append("fill")
        super().fill(buffer, word, stream)


class _LoggingModule:
    def __init__(self, device: _Logging, module: EmulatedModule) -> None:
        self._device, self._module = device, module

    def launch(self, launch: Launch, stream: EmulatedStream) -> None:
        self._device.log.append(launch.kernel)
        self._module.launch(launch, stream)


class TestTraffic:
    @pytest.mark.parametrize(
        ("classes", "size", "storage", "iterations"),
        [(5, (14, 22), "fp32", 2), (21, (33, 29), "unorm16", 3), (130, (5, 7), "fp32", 1), (3, (4, 4), "fp32", 0)],
    )
    def test_the_model_has_every_launch_of_a_frame_in_order(self, monkeypatch, rng, classes, size, storage, iterations):
        traffic = script(monkeypatch, "traffic")
        device = _Logging()
        crf = CudaDenseCRF(iterations=iterations, storage=storage, device=device)
        probabilities = rng.dirichlet(np.ones(classes), size).transpose(2, 0, 1).astype(np.float32)
        crf.labels(probabilities, rng.integers(0, 256, (*size, 3), dtype=np.uint8) // 8)
        device.log.clear()
        crf.field.queue_frame()
        model = traffic.frame(crf.field.spec, crf.vertices)
        assert [each.kernel for each in model] == device.log
        assert all(0 < each.least <= each.asked for each in model)

    def test_an_iteration_moves_what_the_reference_says(self, monkeypatch):
        """1.02 GB for 21 classes, 0.56 million vertices and P1; rows are padded to 24."""
        traffic = script(monkeypatch, "traffic")
        spec = traffic.FieldSpec(1, 21, 513, 513, False, 10, "symmetric", script(monkeypatch, "crf").SETS["P1"])
        least, _ = traffic.per_iteration(spec, {"gaussian": 304_506, "bilateral": 555_000})
        assert least * 21 / 24 == pytest.approx(1.02e9, rel=0.02)


def test_bandwidth_counts_what_is_read_and_written(monkeypatch):
    monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
    bandwidth = script(monkeypatch, "bandwidth")
    rows = list(bandwidth.copies(EmulatedDevice(), 1 << 12))
    assert [row["copy"] for row in rows] == ["host to device", "device to device", "device to host"]
    assert all(row["gb_per_s"] > 0 for row in rows)
    assert bandwidth.copy_gb_per_s(EmulatedDevice()) > 0


#: The format that Nsight Compute documents for --csv --page raw, written by hand: not what a GPU said.
NCU_LOG = """\
==PROF== Connected to process 4711 (/usr/bin/python3.12)
==PROF== Profiling "crf_blur_f32" - 0: 0%....50%....100% - 2 passes
==PROF== Disconnected from process 4711
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC",\
"dram__bytes_read.sum","dram__bytes_write.sum","dram__throughput.avg.pct_of_peak_sustained_elapsed",\
"gpu__time_duration.sum","launch__registers_per_thread","launch__waves_per_multiprocessor","lts__t_bytes.sum",\
"sm__warps_active.avg.pct_of_peak_sustained_active"
"","","","","","","","","","","","byte","byte","%","ns","register/thread","","byte","%"
"0","4711","python3.12","127.0.0.1","crf_blur_f32","1","14","(6, 42, 1)","(2112, 1, 1)","0","9.0",\
"53,280,000","50,000,000","71.5","42,016","32","2","130,000,000","88.25"
"1","4711","python3.12","127.0.0.1","atrous::crf_step_f32(const Term *, int)","1","14","(8, 32, 1)","(2112, 1, 1)",\
"0","9.0","1,000","3,000","n/a","2,000","40","2","4,000","75.75"
"""


class TestNcu:
    @pytest.fixture
    def ncu(self, monkeypatch) -> ModuleType:
        monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
        return script(monkeypatch, "ncu")

    def test_its_log_is_read(self, ncu):
        blur, step = ncu.read_csv(NCU_LOG)
        assert blur == {
            "kernel": "crf_blur_f32", "ns": 42016, "dram_read": 53_280_000, "dram_written": 50_000_000,
            "l2": 130_000_000, "dram_percent": 71.5, "occupancy_percent": 88.25, "registers": 32, "waves": 2,
        }  # fmt: skip
        assert step["kernel"] == "crf_step_f32"
        assert step["dram_percent"] is None
        assert ncu.read_csv("==ERROR== ERR_NVGPUCTRPERM") == []

    def test_kernels_are_summed_up_beside_the_model(self, ncu):
        launches = ncu.read_csv(NCU_LOG)
        blur, step = (ncu.Traffic(each["kernel"], "iteration", "", 7e6, 9e6) for each in launches)
        fill = ncu.Traffic(ncu.FILL, "construction", "", 4, 4)
        first, second = ncu.table([launches[1], launches[0], launches[0]], [step, fill, blur, blur])
        assert (first["kernel"], first["launches"], first["ms"]) == ("crf_blur_f32", 2, 0.084)
        assert first["dram_gb_per_s"] == 2458.1
        assert (first["model_least_bytes"], first["model_asked_bytes"]) == (14e6, 18e6)
        assert (second["occupancy_percent"], second["dram_percent"]) == (75.8, None)
        with pytest.raises(ValueError, match="3 launches, not the 2"):
            ncu.table([launches[0]] * 3, [blur, blur])

    @pytest.mark.parametrize(
        ("says", "outcome"),
        [
            ("echo ==ERROR== ERR_NVGPUCTRPERM > $7; exit 1", "exit code 1: ==ERROR== ERR_NVGPUCTRPERM"),
            ("echo oops; exit 3", "exit code 3: oops\n"),
            ("sleep 60", "nothing after 1 s: "),
        ],
    )
    def test_what_keeps_ncu_from_running_is_said(self, ncu, monkeypatch, tmp_path, says, outcome):
        monkeypatch.setattr(ncu, "LIMIT_S", 1)
        tool = tmp_path / "ncu"
        tool.write_text(f"#!/bin/sh\n{says}\n")
        tool.chmod(0o755)
        assert list(ncu.profile(str(tool), "fp32")) == [
            {"storage": "fp32", "outcome": f"not run: ncu ended with {outcome}"}
        ]

    def test_a_frame_is_watched_and_fits_the_model(self, ncu):
        device = _Logging()
        model = ncu.run_frame(device, "unorm16", nullcontext())
        names = [name for name in device.log[-len(model) :] if name != ncu.FILL]
        launches = [{"kernel": name, **dict.fromkeys(ncu.METRICS, 1.0)} for name in names]
        lines = ncu.table(launches, model)
        assert {(line["lattice"], line["launches"]) for line in lines if line["kernel"] == "crf_blur_u16"} == {
            ("gaussian", 30), ("bilateral", 60),
        }  # fmt: skip


class TestEngines:
    @pytest.fixture
    def engines(self, monkeypatch) -> ModuleType:
        monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
        return script(monkeypatch, "engines")

    def test_the_network_alone_and_whole_pictures_are_timed(self, engines, tiny_bundle, rng):
        picture = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        reference = engines.Reference.of(tiny_bundle, picture, "fp32")
        row = engines.measure(tiny_bundle, OnnxDeviceBackend(tiny_bundle), picture, reference)
        assert row["outcome"] == "runs"
        assert row["network"]["logit_agreement"] == 1
        assert {"graph", "no_graph"} <= row["network"].keys()
        assert row["picture"]["agreement"] == 1
        assert "crf" not in row["picture"]["stages"]
        assert "crf" in row["picture_with_crf"]["stages"]

    def test_a_wrong_result_is_not_timed(self, engines, tiny_bundle, rng):
        picture = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        reference = engines.Reference.of(tiny_bundle, picture, "fp32")
        other = replace(reference, logits=-reference.logits)
        row = engines.measure(tiny_bundle, OnnxDeviceBackend(tiny_bundle), picture, other)
        assert row["outcome"].startswith("wrong result")

    @needs_no_driver
    def test_without_a_gpu_every_engine_says_why_not(self, engines, monkeypatch, tiny_bundle, tmp_path):
        monkeypatch.setattr(sys.modules["networks"], "FOLDER", tmp_path)
        network = engines.Network("tiny", (40, 48))
        (absent,) = engines.rows_of(network, "fp32")
        assert absent["outcome"] == "not run: there is no bundle; see networks.py"
        shutil.copytree(tiny_bundle.path, network.path)
        rows = list(engines.rows_of(network, "fp32"))
        assert not list(engines.rows_of(network, "int8")), "the bundle has no such graph"
        assert {"tensorrt", "tensorrt-rtx", "onnxruntime-cuda"} <= {row["engine"] for row in rows}
        assert all(row["outcome"].startswith("refused: ") for row in rows)

    def test_a_bug_in_one_engine_leaves_the_others(self, engines, monkeypatch, tiny_bundle, tmp_path):
        def broken(*_: object) -> None:
            raise ValueError("oops")

        monkeypatch.setattr(sys.modules["networks"], "FOLDER", tmp_path)
        network = engines.Network("tiny", (40, 48))
        shutil.copytree(tiny_bundle.path, network.path)
        both = [("broken", broken), ("works", lambda: OnnxDeviceBackend(tiny_bundle))]
        monkeypatch.setattr(engines, "ways", lambda *_: both)
        assert [row["outcome"] for row in engines.rows_of(network, "fp32")] == ["failed: ValueError: oops", "runs"]


class TestTorchPeers:
    @pytest.fixture
    def peers(self, monkeypatch) -> ModuleType:
        monkeypatch.setenv("GPU_CHECK_REHEARSAL", "1")
        return script(monkeypatch, "torch_peers")

    def test_the_network_alone_and_whole_pictures_are_timed(self, peers, monkeypatch, tiny_bundle, tmp_path):
        networks = sys.modules["networks"]
        monkeypatch.setattr(networks, "FOLDER", tmp_path)
        monkeypatch.setattr(networks.Network, "model", lambda _: TinyDeepLab(5).eval())
        network = networks.Network("tiny", (40, 48))
        shutil.copytree(tiny_bundle.path, network.path)
        monkeypatch.setattr(peers, "NETWORKS", [network])
        rows = list(peers.rows(peers.EAGER))
        assert [row["precision"] for row in rows] == ["fp32", "fp32", "fp16", "fp16"]
        assert all(row["outcome"] == "runs" and row["picture"]["median_ms"] > 0 for row in rows)

    def test_what_fails_is_said(self, peers, monkeypatch):
        def fail(_: object) -> None:
            raise RuntimeError("no such kernel")

        monkeypatch.setattr(sys.modules["networks"].Network, "model", lambda _: TinyDeepLab(5).eval())
        variant = peers.Variant("broken", "fp32", is_channels_last=False, wrap=fail)
        (row,) = peers.rows([variant])
        assert row["outcome"] == "failed: no such kernel"

    def test_without_a_gpu_it_says_so(self, peers, monkeypatch):
        monkeypatch.delenv("GPU_CHECK_REHEARSAL")
        monkeypatch.setattr(peers.torch.cuda, "is_available", lambda: False)
        (row,) = peers.rows(peers.EAGER)
        assert row["outcome"].endswith("sees no GPU")


def test_the_networks_are_those_of_the_issue(monkeypatch):
    networks = script(monkeypatch, "networks")
    assert [(each.name, each.size) for each in networks.NETWORKS] == [
        ("street", (368, 480)), ("deeplabv3_resnet50", (513, 513)), ("deeplabv3_resnet101", (513, 513)),
    ]  # fmt: skip


def test_every_step_of_the_benchmark_is_a_script(monkeypatch):
    bench = script(monkeypatch, "bench")
    assert all((FOLDER / f"{name}.py").exists() for name in bench.LIMITS_S)


def test_predictions_cover_the_targets_and_never_beat_a_copy(monkeypatch, capsys):
    predict = script(monkeypatch, "predict")
    for name, classes, size, vertices in predict.CASES:
        launches = predict.model(classes, size, vertices, "unorm16")
        assert predict.expected_ms(launches) > 1e3 * predict.total(launches)[0] / predict.COPY, name
    predict.main()
    assert capsys.readouterr().out.count("| `crf_blur_u16` |") == 2
