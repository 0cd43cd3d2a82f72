"""The CRF as a layer: its forward is `DenseCRF`'s, its gradient that of the same computation in float64."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from dense_filters import bilateral_matrix, gaussian_matrix, oracle
from tolerances import CRF_GRADIENT_EXACT_COSINE, CRF_GRADIENT_RELATIVE

from atrous.crf import Compatibility, CRFParams, DenseCRF
from atrous.crf.torch import DenseCRFLayer
from atrous.errors import ArgumentError, CRFError, DeviceError, ShapeError

PARAMS = CRFParams.deeplab_v2_resnet()
GENTLE = CRFParams(
    bilateral_weight=1.5,
    bilateral_sigma_xy_px=5,
    bilateral_sigma_rgb=30,
    gaussian_weight=0.8,
    gaussian_sigma_xy_px=1.5,
    unary_temperature=1.3,
)


@pytest.fixture
def make_batch(rng):
    """`make_batch(images, classes, height, width)` → logits and smooth images, tensors."""

    def make(images, classes, height, width):
        y, x = np.mgrid[:height, :width]
        regions = (x * 3 // width + 2 * (y * 2 // height)) % classes
        logits = rng.normal(size=(images, classes, height, width)) + 2 * (np.arange(classes)[:, None, None] == regions)
        pixels = regions[None, ..., None] * 60 + rng.integers(0, 40, (images, height, width, 3))
        return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(pixels.astype(np.uint8))

    return make


def learned_compatibility(rng, classes):
    return Compatibility(
        bilateral=rng.uniform(0.5, 1.5, classes).tolist(),
        gaussian=rng.uniform(0.5, 1.5, classes).tolist(),
        matrix=(rng.normal(size=(classes, classes)) * 0.3 - np.eye(classes)).tolist(),
    )


class TestForward:
    @pytest.mark.parametrize("classes", [1, 2, 5, 11])
    @pytest.mark.parametrize("params", [PARAMS, GENTLE])
    def test_is_dense_crf_to_the_last_bit(self, make_batch, classes, params):
        logits, images = make_batch(2, classes, 13, 17)
        marginals = DenseCRFLayer(params, num_classes=classes, iterations=4)(logits, images)
        crf = DenseCRF(params, iterations=4)
        expected = [
            crf(torch.softmax(each, 0).numpy(), image.numpy()) for each, image in zip(logits, images, strict=True)
        ]
        assert (marginals.detach().numpy() == np.stack(expected)).all()

    def test_runs_what_was_learned(self, make_batch, rng):
        logits, images = make_batch(1, 5, 12, 14)
        layer = DenseCRFLayer(GENTLE, num_classes=5, compatibility=learned_compatibility(rng, 5), iterations=3)
        with torch.no_grad():
            layer.temperature.fill_(0.83)
            layer.compatibility.add_(torch.from_numpy(rng.normal(size=(5, 5)).astype(np.float32)) * 0.1)
        deployed = layer.to_dense_crf()
        probabilities = torch.softmax(logits, 1)[0].numpy()
        assert (layer(logits, images)[0].detach().numpy() == deployed(probabilities, images[0].numpy())).all()
        again = pickle.loads(pickle.dumps(deployed))
        assert (again(probabilities, images[0].numpy()) == deployed(probabilities, images[0].numpy())).all()

    def test_without_kernels_or_iterations_is_the_softmax(self, make_batch):
        logits, images = make_batch(1, 3, 6, 5)
        nothing = CRFParams(
            bilateral_weight=0,
            bilateral_sigma_xy_px=1,
            bilateral_sigma_rgb=1,
            gaussian_weight=0,
            gaussian_sigma_xy_px=1,
        )
        expected = torch.softmax(logits, 1).numpy()
        for layer in (DenseCRFLayer(nothing, num_classes=3), DenseCRFLayer(num_classes=3, iterations=0)):
            assert layer(logits, images).detach().numpy() == pytest.approx(expected, abs=1e-6)

    def test_has_the_same_bits_and_gradients_for_any_number_of_threads(self, make_batch):
        logits, images = make_batch(1, 5, 61, 53)
        results = []
        for threads in (1, 2, 5):
            layer = DenseCRFLayer(num_classes=5, iterations=3, threads=threads)
            given = logits.clone().requires_grad_()
            marginals = layer(given, images)
            marginals.square().sum().backward()
            results.append(
                (marginals, given.grad, layer.compatibility.grad, layer.bilateral.grad, layer.temperature.grad)
            )
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def gradients(marginals, weights, leaves):
    return torch.autograd.grad((marginals * weights).sum(), leaves, allow_unused=True)


def relative(got, expected):
    """Largest difference over the largest value."""
    return float((got.double() - expected).abs().max() / expected.abs().max())


class TestGradient:
    @pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 10])
    @pytest.mark.parametrize("is_potts", [True, False])
    def test_equals_autograd_through_the_dense_matrix_of_the_filter(self, make_batch, rng, iterations, is_potts):
        """The oracle filters with the lattice's own matrices, in float64."""
        classes, height, width = 4, 9, 8
        logits, images = make_batch(2, classes, height, width)
        start = None if is_potts else learned_compatibility(rng, classes)
        layer = DenseCRFLayer(GENTLE, num_classes=classes, iterations=iterations, compatibility=start)
        weights = torch.from_numpy(rng.normal(size=logits.shape).astype(np.float32))
        leaves = [logits.requires_grad_(), *layer.parameters()]
        got = gradients(layer(logits, images), weights, leaves)

        doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
        kernels = [
            [
                torch.from_numpy(gaussian_matrix(GENTLE, (height, width))),
                torch.from_numpy(bilateral_matrix(GENTLE, image)),
            ]
            for image in images.numpy()
        ]
        names = [name for name, _ in layer.named_parameters()]
        expected_marginals = oracle(doubles[0], dict(zip(names, doubles[1:], strict=True)), kernels, GENTLE, iterations)
        expected = gradients(expected_marginals, weights.double(), doubles)
        assert relative(layer(logits, images).detach(), expected_marginals.detach()) <= CRF_GRADIENT_RELATIVE
        for name, mine, theirs in zip(["logits", *names], got, expected, strict=True):
            if theirs is None or not theirs.any():
                assert mine is None or not mine.any(), name
            else:
                assert relative(mine, theirs) <= CRF_GRADIENT_RELATIVE, name

    def test_the_oracle_passes_gradcheck(self, make_batch, rng):
        classes, height, width = 3, 3, 4
        logits, images = make_batch(1, classes, height, width)
        layer = DenseCRFLayer(GENTLE, num_classes=classes, compatibility=learned_compatibility(rng, classes))
        names = [name for name, _ in layer.named_parameters()]
        kernels = [
            [
                torch.from_numpy(gaussian_matrix(GENTLE, (height, width))),
                torch.from_numpy(bilateral_matrix(GENTLE, image)),
            ]
            for image in images.numpy()
        ]

        def marginals(*leaves):
            return oracle(leaves[0], dict(zip(names, leaves[1:], strict=True)), kernels, GENTLE, 3)

        doubles = [leaf.detach().double().requires_grad_() for leaf in (logits, *layer.parameters())]
        assert torch.autograd.gradcheck(marginals, doubles)

    def test_is_near_that_of_the_exact_gaussian(self, make_batch, rng):
        """The lattice only approximates the sum over all pairs, so the gradients point the same way."""
        classes, height, width = 3, 12, 14
        logits, images = make_batch(1, classes, height, width)
        layer = DenseCRFLayer(GENTLE, num_classes=classes, iterations=5)
        weights = torch.from_numpy(rng.normal(size=logits.shape).astype(np.float32))
        leaves = [logits.requires_grad_(), layer.bilateral, layer.gaussian, layer.compatibility, layer.temperature]
        got = gradients(layer(logits, images), weights, leaves)
        doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
        names = ("bilateral", "gaussian", "compatibility", "temperature")
        kernels = [
            [
                torch.from_numpy(gaussian_matrix(GENTLE, (height, width), is_exact=True)),
                torch.from_numpy(bilateral_matrix(GENTLE, images[0].numpy(), is_exact=True)),
            ]
        ]
        marginals = oracle(doubles[0], dict(zip(names, doubles[1:], strict=True)), kernels, GENTLE, 5)
        expected = gradients(marginals, weights.double(), doubles)
        for mine, theirs in zip(got, expected, strict=True):
            cosine = torch.nn.functional.cosine_similarity(mine.double().flatten(), theirs.flatten(), dim=0)
            assert cosine >= CRF_GRADIENT_EXACT_COSINE

    def test_what_is_clipped_has_none(self, make_batch):
        logits, images = make_batch(1, 3, 6, 7)
        logits[0, 1] = -40.0
        given = logits.requires_grad_()
        (gradient,) = torch.autograd.grad(
            DenseCRFLayer(GENTLE, num_classes=3, iterations=0)(given, images)[0, 1].sum(), given
        )
        # The marginal of a class that is clipped changes with those of the others, but not with its own logit.
        assert gradient[0, 1].abs().max() <= 1e-8 < gradient[0, 0].abs().max()

    def test_only_what_is_asked_for(self, make_batch):
        logits, images = make_batch(1, 3, 6, 7)
        layer = DenseCRFLayer(num_classes=3, iterations=2)
        layer.compatibility.requires_grad_(False)
        layer(logits, images).square().sum().backward()
        assert layer.compatibility.grad is None
        with_pairs = DenseCRFLayer(num_classes=3, iterations=2)
        with_pairs(logits, images).square().sum().backward()
        assert torch.allclose(layer.bilateral.grad, with_pairs.bilateral.grad, rtol=1e-5)

    def test_a_step_down_the_gradient_lowers_the_loss(self, make_batch):
        logits, images = make_batch(1, 4, 16, 18)
        truth = torch.randint(4, (1, 16, 18), generator=torch.Generator().manual_seed(0))
        layer = DenseCRFLayer(GENTLE, num_classes=4)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.02)
        losses = []
        for _ in range(4):
            loss = torch.nn.functional.nll_loss(layer(logits, images).clamp_min(1e-6).log(), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]

    def test_two_calls_before_one_way_back(self, make_batch):
        logits, images = make_batch(2, 3, 8, 9)
        layer = DenseCRFLayer(GENTLE, num_classes=3, iterations=3)
        both = layer(logits, images).square().sum()
        apart = sum(layer(logits[i : i + 1], images[i : i + 1]).square().sum() for i in range(2))
        for parameter in layer.parameters():
            together = torch.autograd.grad(both, parameter, retain_graph=True)[0]
            assert torch.allclose(together, torch.autograd.grad(apart, parameter, retain_graph=True)[0], rtol=1e-4)


class TestRefuses:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x, i: (x.double(), i), ShapeError, r"logits must be float32 \[N, C, H, W\], got float64"),
            (lambda x, i: (x.half(), i), ShapeError, r"convert it with \.float\(\)"),
            (lambda x, i: (x[0], i), ShapeError, r"logits must be float32 \[N, C, H, W\], got float32 \[3, 6, 7\]"),
            (lambda x, i: (x[:, :2], i), ShapeError, "logits must have 3 classes, got 2 classes"),
            (lambda x, i: (x[:0], i[:0]), ShapeError, "got float32 .0, 3, 6, 7."),
            (lambda x, i: (x.numpy(), i), ShapeError, "logits must be a tensor"),
            (lambda x, i: (x.to("meta"), i), DeviceError, r"on meta. Move it with logits\.cpu\(\)"),
            (lambda x, i: (x.to_sparse(), i), DeviceError, "dense tensor"),
            (lambda x, i: (x, i.float()), ShapeError, "do not normalize them"),
            (lambda x, i: (x, i.permute(0, 3, 1, 2)), ShapeError, r"images\.permute\(0, 2, 3, 1\)"),
            (lambda x, i: (x, i[:, :-1]), ShapeError, r"images must be uint8 \[1, 6, 7, 3\], got uint8 \[1, 5, 7, 3\]"),
            (lambda x, _: (x, None), ShapeError, "images must be a tensor, got None"),
            (
                lambda x, i: (x.where(x < 9, torch.nan).index_fill(3, torch.tensor(2), torch.nan), i),
                CRFError,
                "logits must be finite",
            ),
        ],
    )
    def test_logits_and_images(self, make_batch, change, error, message):
        logits, images = make_batch(1, 3, 6, 7)
        with pytest.raises(error, match=message):
            DenseCRFLayer(num_classes=3)(*change(logits, images))

    def test_gradients_that_are_not_finite(self, make_batch):
        logits, images = make_batch(1, 3, 6, 7)
        layer = DenseCRFLayer(num_classes=3, iterations=1)
        with pytest.raises(CRFError, match=r"the gradient of the marginals must be finite, .* at \[0, 0, 0, 0\]"):
            (layer(logits, images) * torch.nan).sum().backward()

    def test_a_second_derivative(self, make_batch):
        logits, images = make_batch(1, 3, 4, 4)
        layer = DenseCRFLayer(num_classes=3, iterations=1)
        (gradient,) = torch.autograd.grad(layer(logits, images).square().sum(), layer.temperature, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.backward()

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("temperature", 0.0, "temperature must be positive, got 0"),
            ("temperature", torch.nan, "parameter temperature must be finite"),
            ("bilateral", torch.inf, "parameter bilateral must be finite"),
        ],
    )
    def test_parameters(self, make_batch, name, value, message):
        layer = DenseCRFLayer(num_classes=3)
        with torch.no_grad():
            getattr(layer, name).fill_(value)
        with pytest.raises(CRFError, match=message):
            layer(*make_batch(1, 3, 4, 4))

    def test_options(self):
        with pytest.raises(CRFError, match="num_classes must be 1 to 65536, got 0"):
            DenseCRFLayer(num_classes=0)
        with pytest.raises(CRFError, match="iterations must be 0 to"):
            DenseCRFLayer(num_classes=2, iterations=-1)
        with pytest.raises(CRFError, match="the compatibility is for 2 classes, num_classes is 3"):
            DenseCRFLayer(num_classes=3, compatibility=Compatibility(bilateral=(1, 1), gaussian=(1, 1)))
        with pytest.raises(ArgumentError, match="num_classes must be int; got str"):
            DenseCRFLayer(num_classes="3")
