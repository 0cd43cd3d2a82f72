# The GPU's part: its host code, and the kernels as machine code inside the library. CUDA is needed to compile kernels
# and for nothing else: the driver's functions are found at run time.
list(APPEND ATROUS_SOURCES
  src/cuda/crf_field.cpp
  src/cuda/device.cpp
  src/cuda/device_pipeline.cpp
  src/cuda/driver.cpp
  src/cuda/frame_program.cpp
  src/cuda/replay.cpp)
target_compile_definitions(atrous_settings INTERFACE ATROUS_WITH_CUDA)

set(ATROUS_KERNELS
  "${ATROUS_ROOT}/crf/kernels/dense_crf.cu"
  "${ATROUS_ROOT}/runtime/kernels/frame.cu")

if(ATROUS_CUDA_EMULATOR)
  list(APPEND ATROUS_SOURCES src/cuda/images_emulated.cpp)
  return()
endif()

find_program(ATROUS_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT ATROUS_NVCC)
  message(FATAL_ERROR "ATROUS_WITH_CUDA needs nvcc to compile kernels; say where: -DATROUS_NVCC=.../bin/nvcc")
endif()
set(codes "")
list(GET ATROUS_CUDA_ARCHITECTURES -1 newest)
foreach(architecture ${ATROUS_CUDA_ARCHITECTURES})
  list(APPEND codes -gencode "arch=compute_${architecture},code=sm_${architecture}")
  # As PTX too, from which the driver compiles for the GPUs in between and for later ones.
  if(architecture IN_LIST ATROUS_DEFAULT_PORTABLE OR architecture EQUAL newest)
    list(APPEND codes -gencode "arch=compute_${architecture},code=compute_${architecture}")
  endif()
endforeach()

file(GLOB headers CONFIGURE_DEPENDS
  "${ATROUS_ROOT}/native/kernels/*.cuh" "${ATROUS_ROOT}/crf/kernels/*.cuh" "${ATROUS_ROOT}/runtime/kernels/*.cuh")
set(fatbins "")
foreach(source ${ATROUS_KERNELS})
  get_filename_component(name "${source}" NAME_WE)
  set(fatbin "${CMAKE_CURRENT_BINARY_DIR}/${name}.fatbin")
  # -fmad=false: which simplex a pixel lies in is decided by the last bit, and the CPU rounds every product and sum.
  add_custom_command(OUTPUT "${fatbin}"
    COMMAND "${ATROUS_NVCC}" -std=c++17 -O3 -fmad=false "-I${ATROUS_ROOT}" ${codes} -fatbin "${source}" -o "${fatbin}"
    DEPENDS "${source}" ${headers}
    COMMENT "Compiling ${name}.cu for ${ATROUS_CUDA_ARCHITECTURES}"
    VERBATIM)
  list(APPEND fatbins "${fatbin}")
endforeach()
add_custom_target(atrous_kernels DEPENDS ${fatbins})
configure_file(src/cuda/images.cpp.in generated/images.cpp @ONLY)
set_source_files_properties("${CMAKE_CURRENT_BINARY_DIR}/generated/images.cpp" PROPERTIES OBJECT_DEPENDS "${fatbins}")
list(APPEND ATROUS_SOURCES "${CMAKE_CURRENT_BINARY_DIR}/generated/images.cpp")
