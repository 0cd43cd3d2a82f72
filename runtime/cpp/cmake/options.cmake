# How everything here is compiled, and against what: the target atrous_settings.
add_library(atrous_settings INTERFACE)
target_include_directories(atrous_settings INTERFACE
  "${CMAKE_CURRENT_SOURCE_DIR}/include" "${CMAKE_CURRENT_SOURCE_DIR}/src" "${CMAKE_CURRENT_BINARY_DIR}/generated")
# The native core includes by path from the root: "native/parallel.hpp".
target_include_directories(atrous_settings INTERFACE "${ATROUS_ROOT}")
target_link_libraries(atrous_settings INTERFACE Threads::Threads ${CMAKE_DL_LIBS} nlohmann_json::nlohmann_json)

# As in setup.py: all instruction sets, and so all machines, round alike, and the labels are Python's.
target_compile_options(atrous_settings INTERFACE
  -ffp-contract=off -fno-math-errno -Wall -Wextra -Wno-psabi)
if(ATROUS_WARNINGS_AS_ERRORS)
  target_compile_options(atrous_settings INTERFACE -Werror)
endif()
if(ATROUS_SANITIZE)
  target_compile_options(atrous_settings INTERFACE
    "-fsanitize=${ATROUS_SANITIZE}" -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  target_link_options(atrous_settings INTERFACE "-fsanitize=${ATROUS_SANITIZE}")
endif()

if(ATROUS_WITH_OPENVINO)
  # The wheel of PyPI brings headers and a CMake package: look into the repository's own environment too.
  file(GLOB openvino_hints "${ATROUS_ROOT}/.venv/lib/python3*/site-packages/openvino/cmake")
  find_package(OpenVINO QUIET COMPONENTS Runtime HINTS ${openvino_hints})
  if(NOT OpenVINO_FOUND)
    message(FATAL_ERROR
      "OpenVINO was not found. Install it (pip install openvino) and say where it is:\n"
      "  -DOpenVINO_DIR=$(python -c 'import openvino, pathlib; print(pathlib.Path(openvino.__file__).parent / \"cmake\")')\n"
      "or build without it: -DATROUS_WITH_OPENVINO=OFF")
  endif()
  target_link_libraries(atrous_settings INTERFACE openvino::runtime)
  target_compile_definitions(atrous_settings INTERFACE ATROUS_WITH_OPENVINO)
endif()

if(ATROUS_WITH_TENSORRT AND NOT ATROUS_WITH_CUDA)
  message(FATAL_ERROR "TensorRT engines run on the GPU: -DATROUS_WITH_CUDA=ON")
endif()
