# The stand-in for libcuda.so.1 with the kernels inside, from tests/emulator.
set(emulator "${ATROUS_ROOT}/tests/emulator")
set(shim -include "${emulator}/cuda_shim.h" "-I${emulator}" "-I${ATROUS_ROOT}")
# -ffp-contract=off is what nvcc's -fmad=false is.
set(kernel_options -std=c++17 -O2 -ffp-contract=off -Wno-psabi -Wno-unknown-pragmas)

file(GLOB kernel_headers CONFIGURE_DEPENDS
  "${ATROUS_ROOT}/native/kernels/*.cuh" "${ATROUS_ROOT}/crf/kernels/*.cuh" "${ATROUS_ROOT}/runtime/kernels/*.cuh")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ATROUS_KERNELS} ${kernel_headers})
add_library(emulated_threads OBJECT "${emulator}/scheduler.cpp")  # the same in each
target_compile_options(emulated_threads PRIVATE ${kernel_options} ${shim})
set_target_properties(emulated_threads PROPERTIES CXX_VISIBILITY_PRESET default)
set(libraries "")
foreach(source ${ATROUS_KERNELS} "${CMAKE_CURRENT_SOURCE_DIR}/standins/pixels.cu")
  get_filename_component(name "${source}" NAME_WE)
  # The names of the kernels, by which the stand-in finds them.
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" ${kernel_options} -E -P ${shim} -x c++ "${source}"
    OUTPUT_VARIABLE expanded COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "extern \"C\"[ \n]+void[ \n]+[A-Za-z0-9_]+" kernels "${expanded}")
  set(registry "#include \"launch.h\"\n#include \"${source}\"\nnamespace atrous {}\nusing namespace atrous;\n")
  foreach(kernel ${kernels})
    string(REGEX REPLACE ".*[ \n]" "" kernel "${kernel}")
    string(APPEND registry "EMULATED_KERNEL(${kernel})\n")
  endforeach()
  file(CONFIGURE OUTPUT "registry_${name}.cpp" CONTENT "${registry}" @ONLY)
  add_library(emulated_${name} MODULE
    "${CMAKE_CURRENT_BINARY_DIR}/registry_${name}.cpp" $<TARGET_OBJECTS:emulated_threads>)
  target_compile_options(emulated_${name} PRIVATE ${kernel_options} ${shim})
  set_target_properties(emulated_${name} PROPERTIES CXX_VISIBILITY_PRESET default)
  list(APPEND libraries "$<TARGET_FILE:emulated_${name}>")
endforeach()
list(JOIN libraries ":" libraries)

add_library(stand_in_driver SHARED stand_in_driver.cpp)
target_include_directories(stand_in_driver PRIVATE "${emulator}")
target_link_libraries(stand_in_driver PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(stand_in_driver PROPERTIES
  OUTPUT_NAME cuda SOVERSION 1 CXX_VISIBILITY_PRESET default
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/driver")

# TensorRT's part with a stand-in for its header, where the library itself is built without.
if(NOT ATROUS_WITH_TENSORRT)
  target_sources(atrous_tests PRIVATE test_tensorrt.cpp "${ATROUS_ROOT}/runtime/cpp/src/cuda/tensorrt_engine.cpp")
  target_include_directories(atrous_tests PRIVATE standins)
  add_test(NAME tensorrt COMMAND atrous_tests tensorrt)
  list(APPEND emulated_tests tensorrt)
endif()
set_tests_properties(cuda ${emulated_tests} PROPERTIES ENVIRONMENT
  "LD_LIBRARY_PATH=${CMAKE_CURRENT_BINARY_DIR}/driver;ATROUS_EMULATED=${libraries}")
