# TensorRT 10.13 or newer, from its tar file or packages: TENSORRT_ROOT has include/ and lib/.
set(TENSORRT_ROOT "$ENV{TENSORRT_ROOT}" CACHE PATH "Where TensorRT is")
find_path(TENSORRT_INCLUDE NvInferRuntime.h HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES include)
find_library(TENSORRT_LIBRARY nvinfer HINTS "${TENSORRT_ROOT}" PATH_SUFFIXES lib lib64)
# TensorRT's headers include the CUDA runtime's, for types.
get_filename_component(nvcc_folder "${ATROUS_NVCC}" DIRECTORY)
find_path(CUDA_RUNTIME_INCLUDE cuda_runtime_api.h
  HINTS "${nvcc_folder}/../include" ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES include)
if(NOT TENSORRT_INCLUDE OR NOT TENSORRT_LIBRARY OR NOT CUDA_RUNTIME_INCLUDE)
  message(FATAL_ERROR "ATROUS_WITH_TENSORRT needs NvInferRuntime.h, libnvinfer.so and cuda_runtime_api.h: "
    "-DTENSORRT_ROOT=<folder with include and lib>")
endif()
add_library(tensorrt_library INTERFACE)
# Their headers' warnings are not ours.
target_include_directories(tensorrt_library SYSTEM INTERFACE "${TENSORRT_INCLUDE}" "${CUDA_RUNTIME_INCLUDE}")
target_link_libraries(tensorrt_library INTERFACE "${TENSORRT_LIBRARY}")
target_link_libraries(atrous_settings INTERFACE tensorrt_library)
target_compile_definitions(atrous_settings INTERFACE ATROUS_WITH_TENSORRT)
