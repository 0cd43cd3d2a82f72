# The compiled core. Callers go through `atrous.calibration`, `atrous.crf` and `atrous.runtime`, which check values
# and word the errors.

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Floats: TypeAlias = Sequence[float] | NDArray[np.float32] | NDArray[np.uint8]
_Resize: TypeAlias = Literal["none", "stretch", "letterbox"]
_Normalization: TypeAlias = Literal["none", "before", "after", "symmetric"]

# A normalised Gaussian kernel over pixels; building it again reuses its memory.
class Filter:
    def __init__(self, takes_fractions: bool = False) -> None: ...
    def build_gaussian(
        self,
        height: int,
        width: int,
        sigma_xy_px: tuple[float, float],
        normalization: _Normalization = "symmetric",
        threads: int = 0,
    ) -> None: ...
    def build_bilateral(
        self,
        image: NDArray[np.uint8],
        sigma_xy_px: tuple[float, float],
        sigma_rgb: tuple[float, float, float],
        normalization: _Normalization = "symmetric",
        threads: int = 0,
    ) -> None: ...
    def build_from_features(
        self, features: NDArray[np.float32], normalization: _Normalization = "symmetric", threads: int = 0
    ) -> None: ...
    @property
    def pixels(self) -> int: ...
    @property
    def vertices(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    # Values [C, N] of any kind, filtered; transposed for a filter that is normalised on both sides or on none.
    def apply(
        self, values: NDArray[np.float32], is_transposed: bool = False, threads: int = 0
    ) -> NDArray[np.float32]: ...

# The lowest probability of a unary, and what a class that was left out has in the result.
PROBABILITY_FLOOR: float

# The classes that take part in inference: one channel each of a field.
class ClassSubset:
    @property
    def classes(self) -> int: ...
    @property
    def kept(self) -> list[int]: ...
    @property
    def left_out(self) -> list[int]: ...
    @property
    def kept_mass(self) -> float: ...

def likely_classes(
    probabilities: NDArray[np.float32], floor: float, temperature: float = 1.0, threads: int = 0
) -> ClassSubset: ...
def check_class_floor(floor: float, gaussian_weight: float, bilateral_weight: float) -> None: ...

# What the two below have in common.
class _MeanField:
    def __init__(self, pixels: int, channels: int, threads: int = 0) -> None: ...
    def set_unary_from_probabilities(
        self, probabilities: NDArray[np.float32], subset: ClassSubset | None = None, temperature: float = 1.0
    ) -> bool: ...
    def add_term(self, filter: Filter, compatibility: NDArray[np.float32]) -> None: ...  # noqa: A002
    @property
    def terms(self) -> int: ...
    def replace_filter(self, term: int, filter: Filter) -> None: ...  # noqa: A002
    def infer(self, iterations: int) -> None: ...
    def marginals(self, subset: ClassSubset | None = None) -> NDArray[np.float32]: ...
    def labels(self, subset: ClassSubset | None = None) -> NDArray[np.unsignedinteger[Any]]: ...

# Mean-field state of one CRF, in single precision; for one thread at a time.
class MeanField(_MeanField): ...

# The same with rows of 16-bit fractions, for filters that take them. `infer` overwrites the unaries.
class FractionMeanField(_MeanField): ...

# A MeanField to be looked at between two updates.
class SteppedMeanField(MeanField):
    def set_unary(self, unary: NDArray[np.float32]) -> bool: ...
    def start(self) -> None: ...
    def run(self, steps: int) -> None: ...
    def set_marginals(self, marginals: NDArray[np.float32]) -> bool: ...
    def kl_divergence(self) -> float: ...

# A MeanField to be differentiated: from the gradient of Q after so many updates, those of −U [C, N] and of X = −μ of
# each term [terms, C, C], whose diagonals are enough without `is_full`. Overwrites Q.
class DifferentiableMeanField(MeanField):
    def differentiate(
        self, marginal_gradient: NDArray[np.float32], iterations: int, is_full: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]: ...

# What kernels and those that launch them agree on, by the names of native/kernels/grid.cuh, crf/kernels/constants.cuh
# and runtime/kernels/constants.cuh.
KERNEL_CONSTANTS: Mapping[str, int]

# Part of a buffer of a plan.
class Slot:
    @property
    def buffer(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

# One kernel. An int is an int32 there, a float a float32, a slot a pointer.
class PlannedLaunch:
    @property
    def kernel(self) -> str: ...
    @property
    def grid(self) -> int: ...
    @property
    def block(self) -> tuple[int, int]: ...
    @property
    def args(self) -> list[Slot | int | float]: ...

# Sets every 32-bit word.
class PlannedFill:
    @property
    def target(self) -> Slot: ...
    @property
    def word(self) -> int: ...

# Copies on the device.
class PlannedCopy:
    @property
    def source(self) -> Slot: ...
    @property
    def target(self) -> Slot: ...

# One inference of the network, by whoever has its engine.
class PlannedInference:
    @property
    def input(self) -> Slot: ...
    @property
    def logits(self) -> Slot: ...

# A piece of work; `part` is input, construction, iteration or output, or of a frame preprocess, inference or
# postprocess; `lattice` is gaussian, bilateral or empty.
class Step:
    @property
    def work(self) -> PlannedLaunch | PlannedFill | PlannedCopy | PlannedInference: ...
    @property
    def part(self) -> str: ...
    @property
    def lattice(self) -> str: ...

# Memory, whose content is the plan's from one sequence to the next, nobody's after a sequence, or the caller's.
class PlannedBuffer:
    @property
    def name(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def use(self) -> Literal["kept", "scratch", "given"]: ...

# What a buffer holds from the start: 32-bit numbers, or 64-bit words of which slots stand for their addresses.
class Content:
    @property
    def buffer(self) -> str: ...
    @property
    def values(self) -> NDArray[np.float32] | NDArray[np.int32] | list[Slot | int]: ...

# All memory and work of something that runs on a GPU.
class LaunchPlan:
    @property
    def buffers(self) -> list[PlannedBuffer]: ...
    @property
    def contents(self) -> list[Content]: ...
    @property
    def sequences(self) -> dict[str, list[Step]]: ...

# How rows of channels are kept on a lattice.
class RowStorage:
    @property
    def stride(self) -> int: ...
    @property
    def row_bytes(self) -> int: ...

# What the memory and the launches of a lattice depend on: `shape` is (images, height, width), 3 or 6 corners.
class LatticeSpec:
    def __init__(
        self,
        shape: tuple[int, int, int],
        corners: int,
        capacity: int,
        normalization: _Normalization,
        sigmas: tuple[float, float],
    ) -> None: ...
    @property
    def name(self) -> Literal["gaussian", "bilateral"]: ...
    @property
    def corners(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def slices(self) -> int: ...

# What the memory and the launches of a field depend on: `shape` is (images, classes, height, width), `params` are in
# the order of CRFParams.
class FieldSpec:
    def __init__(
        self,
        shape: tuple[int, int, int, int],
        has_fractions: bool,
        iterations: int,
        normalization: _Normalization,
        params: tuple[float, float, float, float, float, float],
        vertices_per_pixel: int,
    ) -> None: ...
    @property
    def storage(self) -> RowStorage: ...
    @property
    def gaussian(self) -> LatticeSpec | None: ...
    @property
    def bilateral(self) -> LatticeSpec | None: ...
    @property
    def can_grow(self) -> bool: ...
    def estimate_bytes(self) -> int: ...
    def describe(self) -> str: ...
    def check_sigmas(self, failures: int, is_build: bool) -> None: ...

# Compatibilities are of the Gaussian and of the bilateral kernel, each [C] or [C, C], without the weights.
# "build" without the vertices that the Gaussian lattice then has, all other sequences with them (launch_plan.hpp).
def plan_field(
    spec: FieldSpec,
    compatibilities: tuple[NDArray[np.float32], NDArray[np.float32]],
    multiprocessors: int,
    gaussian_vertices: int | None = None,
) -> LaunchPlan: ...

# One lattice by itself: "build".
def plan_lattice(spec: LatticeSpec, multiprocessors: int) -> LaunchPlan: ...

# "scan" of the given "values" and "sort" of the given "pairs", whose upper halves are below `high`.
def plan_sorting(count: int, high: int, multiprocessors: int) -> LaunchPlan: ...

# What the memory and the launches of a frame depend on: `output_shape` [images, channels, h, w] is of an engine's
# logits, `logits_shape` of all, which are more where there are tiles.
class FrameSpec:
    def __init__(
        self,
        geometry: Geometry,
        tiles: TilePlan | None,
        pixels: PixelScaling,
        has_half_input: bool,
        output_shape: tuple[int, int, int, int],
        has_half_output: bool,
        align_corners: bool,
        threshold: float | None = None,
    ) -> None: ...
    colors: BandColors | None  # of bands, for the CRF
    @property
    def logits_shape(self) -> list[int]: ...

# "preprocess", "inference", "check", "labels", "probabilities", "threshold" and "swap" (runtime/csrc/launch_plan.hpp).
def plan_frame(spec: FrameSpec, multiprocessors: int) -> LaunchPlan: ...

# "overlay" of given "pictures" and "labels" in the colours of the given "palette".
def plan_overlay(pixels: int, alpha: float, multiprocessors: int) -> LaunchPlan: ...

# Counts of |x| in bins of width 2^exponent; for one thread at a time.
class Histogram:
    def __init__(self) -> None: ...
    def add(self, values: NDArray[np.float32], threads: int = 0) -> bool: ...
    def merge(self, other: Histogram) -> None: ...
    @property
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def exponent(self) -> int: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...
    @property
    def max_abs(self) -> float: ...
    @property
    def zeros(self) -> int: ...
    @property
    def elements(self) -> int: ...

# How one axis of 8-bit pictures is resized, to the last bit as Pillow's bilinear filter does it: output i is the sum
# over t of weights[i, t] · 2⁻²² · input[first[i] + t].
class Resampling:
    def __init__(self, length: int, out_length: int) -> None: ...
    @property
    def first(self) -> NDArray[np.int32]: ...
    @property
    def weights(self) -> NDArray[np.int32]: ...

# [H, W, 3] → [*size, 3], bit for bit as Pillow 13's bilinear filter.
# Bytes as Pillow does it; samples of 16 bits and floats alike.
def resize_image(image: NDArray[Any], size: tuple[int, int], threads: int = 0) -> NDArray[Any]: ...

# Sizes that the network takes: from min to max, k · multiple + offset.
class SizePolicy:
    def __init__(
        self,
        min: tuple[int, int],  # noqa: A002
        opt: tuple[int, int],
        max: tuple[int, int],  # noqa: A002
        multiple: int,
        offset: int,
    ) -> None: ...

# Sizes (height, width) of an image and its labels, and of the network's input, to which `resize` fits the image.
class Geometry:
    def __init__(self, image_size: tuple[int, int], input_size: tuple[int, int], resize: _Resize) -> None: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def input_size(self) -> tuple[int, int]: ...
    @property
    def resize(self) -> _Resize: ...

# Tiles of one image: all of `tile_size`, at `origins` (top, left), covering `full_size`; pixels.
class TilePlan:
    @property
    def tile_size(self) -> tuple[int, int]: ...
    @property
    def origins(self) -> list[tuple[int, int]]: ...
    @property
    def full_size(self) -> tuple[int, int]: ...
    def coarse_size(self, size: tuple[int, int]) -> tuple[int, int]: ...

# The smallest k · multiple + offset that is at least `length`.
def fit_size(length: int, multiple: int, offset: int) -> int: ...

# Size that the image has in an input, and (top, left) of its corner.
def place_image(
    image_size: tuple[int, int], input_size: tuple[int, int], resize: _Resize
) -> tuple[tuple[int, int], tuple[int, int]]: ...
def plan_geometry(image_size: tuple[int, int], policy: SizePolicy, resize: _Resize) -> Geometry: ...
def needs_tiles(geometry: Geometry, policy: SizePolicy) -> bool: ...
def plan_tiles(geometry: Geometry, policy: SizePolicy, stride: int) -> TilePlan: ...
def blend_tiles(plan: TilePlan, infer: Callable[[int, int], NDArray[np.float32]]) -> NDArray[np.float32]: ...
def isa() -> Literal["baseline", "avx2", "avx512"]: ...
def cpu_kind() -> tuple[str, tuple[str, ...]]: ...
def cpu_has_bf16() -> bool: ...
def cpu_sums_int8_exactly() -> bool: ...
def all_finite(values: NDArray[np.float32]) -> bool: ...

# Gives the system the memory that buffers gave back; the number of bytes.
def release_pages() -> int: ...

# Bytes of the pool of pages: in use, kept for the next buffer, and how many are kept at most.
def pool_bytes() -> tuple[int, int, int]: ...
def upsample_labels(
    logits: NDArray[np.float32],
    geometry: Geometry,
    align_corners: bool,
    threads: int = 0,
) -> NDArray[np.unsignedinteger[Any]]: ...
def upsample_logits(
    logits: NDArray[np.float32],
    geometry: Geometry,
    align_corners: bool,
    threads: int = 0,
) -> NDArray[np.float32]: ...
def upsample_probabilities(
    logits: NDArray[np.float32],
    geometry: Geometry,
    align_corners: bool,
    threads: int = 0,
) -> NDArray[np.float32]: ...

# How pixels become network input, (sample − mean) / std, in units of the samples, of bytes 0 to 255: mean and std by
# output channel, which with `swap_rgb` are B, G, R; what lies beyond the image has the value `pad_value`.
class PixelScaling:
    def __init__(
        self,
        mean: _Floats,
        std: _Floats,
        swap_rgb: bool,
        pad_value: _Floats,
        sample: Literal["uint8", "uint16", "float32"] = "uint8",
    ) -> None: ...

# How bands become colours of 0 to 255: (sample − low) · factor of the band of each of R, G and B, −1 for none.
class BandColors:
    def __init__(
        self,
        channels: int,
        sample: Literal["uint8", "uint16", "float32"],
        band: Sequence[int],
        low: Sequence[float],
        factor: Sequence[float],
    ) -> None: ...

def color_bands(image: NDArray[Any], colors: BandColors, threads: int = 0) -> NDArray[np.uint8]: ...
def normalize_image(
    image: NDArray[Any],
    scaling: PixelScaling,
    out_size: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    threads: int = 0,
) -> NDArray[np.float32]: ...
def overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.unsignedinteger[Any]],
    palette: NDArray[np.uint8],
    alpha: float,
    threads: int = 0,
) -> NDArray[np.uint8]: ...
