# GPUs to compile kernels for: those of the Python package, read from its source. "((7, 5), (8, 0))" becomes "75;80".
foreach(name ARCHITECTURES PORTABLE)
  file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../../gpu/toolchain.py" line REGEX "^${name} = ")
  string(REGEX MATCHALL "[0-9]+, [0-9]+" pairs "${line}")
  string(REPLACE ", " "" ATROUS_DEFAULT_${name} "${pairs}")
endforeach()
set(ATROUS_CUDA_ARCHITECTURES "${ATROUS_DEFAULT_ARCHITECTURES}" CACHE STRING "GPUs to compile kernels for")
