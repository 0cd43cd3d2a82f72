"""Every tolerance of the tests, each with the worst value measured and where."""

from __future__ import annotations

from typing import Final

#: Deinterlaced against dilated convolution in ONNX Runtime: max |difference| / max |reference|. Measured: 0, bit for
#: bit, over all of tests/exporter/passes (ONNX Runtime 1.31, AVX-512). Not 0 here because kernels for another CPU may
#: sum in another order; both forms are within 3.3e-7 of float64 (512 channels, rate 4).
DEINTERLACE_RELATIVE: Final = 1e-6

#: Reference networks with adapted weights against independent functional forwards, float32: max |difference| /
#: max |reference|. Measured: 4.7e-7 (smp DeepLabV3Plus ResNet-50, oneDNN on AVX-512); in float64, against the original
#: modules themselves, at most 1.2e-15 over all of them. One convolution at the wrong rate: 3.2e-1.
ADAPTER_RELATIVE: Final = 1e-5

#: Dense CRF against the float64 step-by-step lattice: max |ΔQ|. Measured: 6.8e-7, 21 classes at 17×19, 10 iterations.
CRF_LATTICE_ABS: Final = 1e-5

#: Dense CRF with 16-bit fractions against single precision on small scenes, or against the GPU's, which sums in its own
#: order: max |ΔQ|. Mean field amplifies rounding where labels are nearly tied. Measured: 2.2e-3, one pixel of 4 classes
#: at 5×22, 10 iterations, elsewhere at most 5.7e-4; against the GPU's in the emulator 6.0e-6
#: (tests/crf/test_fractions.py).
CRF_UNORM16_ABS: Final = 3e-3

#: The same on photos with smooth probabilities: max |ΔQ|, and the share of labels that differ. Measured: 2.3e-3 and
#: 5.9e-5, 4 of 68,373 (flower.jpg at 213×321, tests/crf/test_numeric_gates.py); 2.5e-3 and 1.6e-5 on china.jpg at
#: 513², P1.
CRF_UNORM16_PHOTO_ABS: Final = 1e-2
CRF_UNORM16_PHOTO_FLIPS: Final = 1e-4

#: Dense CRF against the exact sum over all pairs: mean |ΔQ|, and labels equal. The lattice only approximates a
#: Gaussian, and mean field amplifies differences where labels are nearly tied: single marginals differ by up to 0.9.
#: Measured: 2.6e-3 and 99.4 %, 4 classes at 24×30, 5 iterations, σ_rgb = 3 (3.6e-4 and 100 % at σ_rgb = 5).
CRF_EXACT_MEAN_ABS: Final = 4e-3
CRF_EXACT_AGREEMENT: Final = 0.99

#: Marginals of one pixel, summed in float32 over up to 256 classes: |sum − 1|. Measured: 7.2e-7.
CRF_SUM_ABS: Final = 1e-5

#: Bilinear upsampling against torch, logits of magnitude up to 20: max |difference|. Measured: 3.8e-6, 65² to 513².
RESAMPLE_ABS: Final = 1e-5

#: Logits of a letterbox against its definition in float64, logits of magnitude up to 20: max |difference|. Positions
#: are in single precision, as torch's are. Measured: 1.0e-4, 513² from 65².
LETTERBOX_ABS: Final = 3e-4

#: Atrous ResNet-50 sampled every 4th position against the strided one: max |difference| / max |reference|.
#: Measured: 8.0e-7 over three seeds, tests/exporter/models/test_backbone.py (oneDNN picks other kernels by stride).
ATROUS_EQUIVALENCE_RELATIVE: Final = 1e-5

#: `MultiScale` in ONNX Runtime against torch: max |difference| / max |reference|. Measured: 3.0e-6 over the sizes in
#: tests/exporter/models/test_multiscale.py (Resize rounds its float32 coordinates otherwise than torch).
MULTISCALE_ONNX_RELATIVE: Final = 1e-5

#: A flat CMYK colour through JPEG at quality 95, in levels of 255. Measured: 0 with libjpeg-turbo 3;
#: other decoders may round differently.
JPEG_LEVELS: Final = 2

#: Colours of Display P3 through LittleCMS against the formula in float64, in levels of 255. Measured:
#: 0.9 on noise (tests/runtime/test_image.py).
ICC_LEVELS: Final = 2

#: Prepared input against `(pixel * scale - mean) / std` in float64: max |difference| · std /
#: (255 · scale + |mean|). Measured: 6.5e-8 over all 256 levels and every normalisation.
NORMALIZE_RELATIVE: Final = 2e-7

#: Logits of a tiled picture against those of the whole one, of magnitude 1, where the network's reach allows equality:
#: max |difference|. Measured: 3.4e-7 (`make_pair` of tests/runtime/test_tiling.py, both grids).
TILED_ABSOLUTE: Final = 5e-6

#: Share of equal labels, tiled against whole, of a random network that looks past the margin of its tiles. Measured:
#: 0.978 (4 cells far, tiles of 33×33 cells, corners aligned) and 0.985 (32×32, edges aligned).
TILED_AGREEMENT: Final = 0.97

#: Sum over classes of a pixel's float32 probabilities, against 1. Measured: 2.4e-7, with the CRF as well (5
#: classes, tests/runtime/test_segmenter.py).
PROBABILITY_SUM: Final = 2e-6

#: Probabilities of a batch against those of single calls: max |difference|. Measured: 0 in both engines
#: (tests/runtime/test_segmenter.py); kernels for another batch may sum in another order.
BATCH_ABSOLUTE: Final = 2e-6

#: The tiny network of tests/tiny_networks.py, exported, in ONNX Runtime against torch: max |difference| /
#: max |reference|. Measured: 3.2e-7 in tests/exporter/test_export.py; 1.5e-6 where `MultiScale` resizes.
EXPORT_RELATIVE: Final = 1e-5

#: The same, deinterlaced or split into taps against dilated. Measured: 0, bit for bit, deinterlaced.
DEINTERLACED_EXPORT_RELATIVE: Final = 1e-5

#: Probabilities of a standalone graph against torch. Measured: 1.2e-7.
STANDALONE_PROBABILITIES_ABS: Final = 1e-6

#: Logits of magnitude 1, OpenVINO against ONNX Runtime in FP32: max |difference|. Measured: 1.8e-7
#: (tests/runtime/backends, AVX-512).
BACKEND_ABSOLUTE: Final = 2e-6

#: FP32 logits against float64: max |difference| / max |reference|. Measured: 5.3e-7 in OpenVINO, 2.9e-7
#: in ONNX Runtime (tests/runtime/backends); OpenVINO told to use bfloat16 is 5.2e-3 away.
FLOAT64_RELATIVE: Final = 2e-6

#: A flat colour through H.264 in 4:2:0 twice, in levels of 255. Measured: 3 (tests/runtime/test_video.py).
VIDEO_LEVELS: Final = 8

#: Reference architectures with random weights, exported, against torch: max |difference| / max |reference|; the bound
#: of `exporter.verify.FP32_TOLERANCE`. Measured on the pictures of `verify`, over all fourteen: 6.9e-6 torch against
#: ONNX Runtime and 7.1e-6 OpenVINO against ONNX Runtime (DeepLabv3+ MobileNetV2), every class the same. On noise:
#: 2.7e-5 (EfficientNet-Lite0, whose float32 forward in torch is 1.4e-5 from float64). Trained weights: 1.8e-6.
REFERENCE_EXPORT_RELATIVE: Final = 1e-4

#: One pass of a CUDA kernel over single-precision rows against float64: max relative difference, all terms positive.
#: Measured in the emulator: 2.3e-7, the splat of 700 entries (tests/crf/test_cuda_kernels.py).
CUDA_SUM_RELATIVE: Final = 2e-6

#: The same with rows of 16-bit fractions, in steps of 1/65535: each result is rounded once, or twice where a splat has
#: tails, and the blur's shares are rounded down by up to a step each. Measured in the emulator: 1.6 (blur).
CUDA_FRACTION_STEPS: Final = 2.5

#: One softmax-update by a CUDA kernel, random energies of magnitude 15, against float64: max |ΔQ|. Measured in the
#: emulator: 3.5e-6 (rounding an energy of 15 moves a probability by 1e-6).
CUDA_SOFTMAX_ABS: Final = 1e-5

#: Mean field on the GPU, single precision, against the CPU core, both of which sum in their own order: max |ΔQ|.
#: Measured in the emulator: 1.3e-6, 21 classes at 17×19, 10 iterations (tests/crf/test_cuda.py).
CUDA_CPU_ABS: Final = 1e-5

#: The same with 16-bit fractions, whose rounding mean field amplifies where labels are nearly tied. Measured in the
#: emulator: 7.9e-4 (5 classes at 40×60, 10 iterations); on photos with noisy probabilities 2.0e-3 (docs/gpu.md).
CUDA_UNORM16_ABS: Final = 3e-3

#: Barycentric weights of the GPU's lattice against float64 from the same float32 positions. Measured: 1.2e-7.
CUDA_WEIGHT_ABS: Final = 1e-6

#: Dense CRF against pydensecrf on photos and scenes: max |ΔQ|. Measured: 8.2e-5, china.jpg at 427×640, P1, 10
#: iterations; at one iteration at most 3.9e-7.
CRF_PEER_ABS: Final = 1e-4

#: KL divergence against pydensecrf, which sums in float32, and against the sum in float64: relative. Measured: 2.5e-6,
#: 4 classes at 47×61.
CRF_PEER_KL_RELATIVE: Final = 1e-3

#: Small graphs in FP16 against FP32, rounded after every node: max |difference| / max |reference|. Measured: 6.1e-4,
#: tests/exporter/passes/test_half.py; one rounding is at most 4.9e-4, and a few add up.
HALF_RELATIVE: Final = 3e-3

#: Logits of a tiny engine whose tensors are FP16, which rounds them at both ends, against FP32: max |difference| /
#: max |reference|. Measured: 4.4e-4 (tests/runtime/backends/test_tensorrt.py); one rounding is at most 4.9e-4.
STANDIN_HALF_RELATIVE: Final = 2e-3

#: `stretch` has Pillow 13's order of passes; up to 12 it is another for some sizes, and each pass rounds to 8 bits:
#: levels of 255, with an older Pillow. Measured: 1, tests/runtime/test_frame.py; with Pillow 13 no bit differs.
RESIZE_ORDER_LEVELS: Final = 1

#: Expected squared error of INT8 from a histogram, which takes values to lie evenly in their bins, against that of the
#: values themselves: relative, or in squares of the INT8 step, whichever is more. Measured over the distributions of
#: tests/calibration/test_thresholds.py: 1.6e-3, and where more, 3.3e-3 steps² (a constant; else 6e-4).
SQUARED_ERROR_RELATIVE: Final = 3e-3
SQUARED_ERROR_STEPS: Final = 5e-3

#: Labels and probabilities of the C++ runtime against Python's on the same engine. Measured: every label and every bit
#: the same (tests/cpp/test_labels.py: the demo bundle, also in INT8, all sizes, tiles, the CRF): both run one core.
#: Against ONNX Runtime on the demo bundle: every label the same.
CPP_AGREEMENT: Final = 0.9999
CPP_PROBABILITY_ABS: Final = 1e-6

#: Small INT8 graphs against FP32, in steps of 1/127 of the largest logit: max |difference|. Measured: 4.5, the inverted
#: residual block of tests/int8_graphs.py, over three pictures of noise.
INT8_STEPS: Final = 8.0

#: The same INT8 graphs with their rest in FP16 against FP32: max |difference| / max |reference|. Measured: 3.6e-2
#: there; single values fall on the other side of a step.
INT8_REST_RELATIVE: Final = 0.06

#: Memory that 1,000 segmenters opened and closed in the C++ runtime leave behind, after 300 others: bytes. Measured:
#: 118,784 (tests/cpp/test_interface.py), which OpenVINO keeps; a leak of one tiny graph a cycle would be tens of MB.
CPP_GROWTH_BYTES: Final = 4 << 20

#: Labels of the tiny network with input and logits in half precision against single: share that is equal. Measured: 1
#: (tests/runtime/test_pipeline.py).
HALF_LABEL_AGREEMENT: Final = 0.999

#: FP32 engines of TensorRT, TensorFloat-32 off, against ONNX Runtime: max |difference| / max |reference|. Not measured:
#: it takes a GPU (tests/runtime/backends/test_tensorrt_gpu.py); the bound of `exporter.verify.FP32_TOLERANCE`.
TENSORRT_FP32_RELATIVE: Final = 1e-4

#: A layer with its bias inside against the same with an `Add` behind it, FP32: max |difference| / max |reference|.
#: Measured: 1.2e-7, one rounding more, tests/calibration/test_split_bias.py.
SPLIT_BIAS_RELATIVE: Final = 1e-6

#: INT8 with the rest in FP16, ONNX Runtime with against without its optimizations: max |difference| / max |reference|.
#: Measured: 0 (tests/calibration/test_split_bias.py, the trained network), and 3.03e-2 on a CPU without VNNI, where
#: sums in FP32 come in another order and some codes round to the next; where it quantizes biases: 0.84.
INT8_OPTIMIZED_RELATIVE: Final = 5e-2

#: Split into taps against dilated convolution in ONNX Runtime: max |difference| / max |reference|. Another order of
#: summation. Measured: 2.3e-7 over all of tests/exporter/passes/test_taps.py (ONNX Runtime 1.31, AVX-512).
TAPS_RELATIVE: Final = 1e-6

#: Probabilities of a sigmoid at full size against torch's in float64: max |difference|. Measured:
#: 4.5e-7, six pictures of 61×83 (tests/runtime/test_channels.py).
SIGMOID_ABS: Final = 1e-5

#: Probabilities of a network from which the final softmax or sigmoid was taken, against the same network exported
#: without one: max |difference|. Measured: 2.4e-7 where a LogSoftmax stays, 0 elsewhere
#: (tests/exporter/test_logits.py).
FINAL_ACTIVATION_ABS: Final = 1e-5

#: Probabilities averaged over windows and mirror images in single precision, against float64: max |difference|.
#: Rounding of sums of a few terms of up to 1.
AUGMENTED_ABSOLUTE: Final = 2e-6

#: Gradients of the CRF as a layer, of its loss and of its filter, and marginals, against autograd in float64 through
#: the lattice's own filter as a dense matrix: largest difference over the largest value.
CRF_GRADIENT_RELATIVE: Final = 1e-4

#: The same against the exact sum over all pairs, which the lattice approximates: cosine of the angle between the two.
CRF_GRADIENT_EXACT_COSINE: Final = 0.95

#: `FeatureCRF` against pydensecrf with the same features: max |ΔQ|.
CRF_FEATURE_PEER_ABS: Final = 1e-5
#: Levels of 255 between an overlay that a browser's canvas blends and the one that `Result.overlay` does: both round,
#: the canvas its opacity as well. Measured in Chromium 156: 1 at opacities 0.6 and 0.25.
BLENDED_ROUNDING: Final = 2
