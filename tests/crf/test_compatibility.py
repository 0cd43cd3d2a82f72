from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from crf_oracles import colour_features, lattice_kernel, mean_field, normalized, position_features
from emulator.emulated_device import EmulatedDevice
from tolerances import CRF_LATTICE_ABS, CUDA_CPU_ABS

import atrous
from atrous.bundle import Bundle
from atrous.crf import Compatibility, CRFParams, DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.crf.stored import crf_from_stored, stored_crf
from atrous.errors import ArgumentError, CRFError, ShapeError
from atrous.manifest import Manifest

PARAMS = CRFParams.deeplab_v2_resnet()


@pytest.fixture
def learned(rng):
    """A compatibility of four classes that is not symmetric by itself."""
    return Compatibility(
        bilateral=rng.uniform(0.3, 1.4, 4).tolist(),
        gaussian=rng.uniform(0.3, 1.4, 4).tolist(),
        matrix=(rng.normal(size=(4, 4)) * 0.2 - np.eye(4)).tolist(),
    )


def test_equals_the_formula(make_scene, learned):
    """μ_k[a, b] = w_k · ½(f_k[a] + f_k[b]) · m[a, b], on the lattice worked out step by step."""
    probabilities, image = make_scene(4, 9, 11)
    got = DenseCRF(PARAMS, iterations=4, compatibility=learned)(probabilities, image)
    matrix = np.array(learned.matrix)
    symmetric = (matrix + matrix.T) / 2

    def term(kernel, weight, factors):
        f = np.array(factors)
        return normalized(kernel, image.shape[0] * image.shape[1]), weight * (f[:, None] + f) / 2 * symmetric

    terms = [
        term(lattice_kernel(position_features(9, 11, PARAMS.gaussian_sigma_xy_px)), 3, learned.gaussian),
        term(lattice_kernel(colour_features(image, 67, 3)), 4, learned.bilateral),
    ]
    unary = -np.log(np.clip(probabilities.reshape(4, -1).T.astype(np.float64), 1e-5, 1))
    expected = mean_field(unary, terms, 4).T.reshape(got.shape)
    assert np.abs(got - expected).max() <= CRF_LATTICE_ABS


@pytest.mark.parametrize("storage", ["fp32", "unorm16"])
def test_ones_and_potts_change_nothing(make_scene, storage):
    probabilities, image = make_scene(5, 9, 11)
    plain = Compatibility(bilateral=(1.0,) * 5, gaussian=(1.0,) * 5)
    expected = DenseCRF(PARAMS, storage=storage)(probabilities, image)
    assert (DenseCRF(PARAMS, storage=storage, compatibility=plain)(probabilities, image) == expected).all()


def test_on_the_gpus_plan(make_scene, learned):
    """The kernels in the emulator."""
    probabilities, image = make_scene(4, 9, 11)
    expected = DenseCRF(PARAMS, iterations=3, compatibility=learned)(probabilities, image)
    on_gpu = CudaDenseCRF(PARAMS, iterations=3, compatibility=learned, device=EmulatedDevice())
    assert np.abs(on_gpu(probabilities, image) - expected).max() <= CUDA_CPU_ABS


def test_is_stored_in_a_bundle(tiny_bundle: Bundle, learned):
    """Through JSON, to the bits of the CRF that `load` makes."""
    classes = len(tiny_bundle.manifest.classes)
    fitting = Compatibility(
        bilateral=learned.bilateral[:classes],
        gaussian=learned.gaussian[:classes],
        matrix=[row[:classes] for row in learned.matrix[:classes]],
    )
    stored = dataclasses.replace(tiny_bundle.manifest, crf=stored_crf(PARAMS, 7, fitting))
    manifest = Manifest.from_json(stored.to_json())
    crf = atrous.load(Bundle(tiny_bundle.path, manifest), backend="onnxruntime", crf=True).crf
    assert crf is not None
    assert (crf.compatibility, crf.params, crf.iterations) == (fitting, PARAMS, 7)
    assert crf_from_stored(json.loads(json.dumps(stored.crf))).compatibility == fitting


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bilateral": (1, 1, 1)}, CRFError, "got 3 and 2 factors, and rows of"),
        ({"matrix": ((1, 2), (3,))}, CRFError, r"rows of \[1, 2\] in a matrix of 2"),
        ({"matrix": 3}, ArgumentError, r"matrix must be Sequence\[Sequence\[float\]\] \| None; got int 3"),
        ({"matrix": ((1, "b"), (1, 2))}, ArgumentError, "matrix must be"),
        ({"gaussian": (1, float("nan"))}, CRFError, "must be finite"),
        ({"gaussian": "ab"}, ArgumentError, r"gaussian must be Sequence\[float\]; got str"),
        ({"bilateral": (), "gaussian": ()}, CRFError, "got 0 and 0 factors"),
    ],
)
def test_refuses(change, error, message):
    with pytest.raises(error, match=message):
        Compatibility(**{"bilateral": (1, 1), "gaussian": (1, 1), **change})


def test_refuses_other_numbers_of_classes_and_a_floor(make_scene, learned):
    probabilities, image = make_scene(3, 5, 6)
    with pytest.raises(ShapeError, match="the compatibility is for 4 classes; the probabilities have 3"):
        DenseCRF(compatibility=learned)(probabilities, image)
    with pytest.raises(CRFError, match="class_floor needs the Potts compatibility"):
        DenseCRF(compatibility=learned, class_floor=0.01)
    with pytest.raises(CRFError, match="a compatibility has bilateral, gaussian and matrix; got bilateral"):
        Compatibility.from_dict({"bilateral": [1]})
    with pytest.raises(CRFError, match="compatibility must hold bilateral, gaussian and matrix, got int 3"):
        crf_from_stored({**PARAMS.to_dict(), "compatibility": 3})
