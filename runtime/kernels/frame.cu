// The kernels around the network as one translation unit: one module to compile, cache and load.
#include "bands.cuh"
#include "channels.cuh"
#include "overlay.cuh"
#include "preprocess.cuh"
#include "resample.cuh"
#include "tiles.cuh"
