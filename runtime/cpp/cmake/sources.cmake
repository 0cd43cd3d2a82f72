# What the library is made of: ATROUS_SOURCES, and the headers that are generated.
file(GLOB core_sources CONFIGURE_DEPENDS
  "${ATROUS_ROOT}/native/*.cpp" "${ATROUS_ROOT}/crf/csrc/*.cpp" "${ATROUS_ROOT}/runtime/csrc/*.cpp")
list(FILTER core_sources EXCLUDE REGEX "(bindings|module)\\.cpp$")  # Python's
set(ATROUS_SOURCES
  ${core_sources}
  src/bundle.cpp
  src/c_api.cpp
  src/catalogue.cpp
  src/cpu_crf.cpp
  src/cpu_pipeline.cpp
  src/pipeline.cpp
  src/crf_params.cpp
  src/engine_fit.cpp
  src/manifest.cpp
  src/schema.cpp
  src/segmenter.cpp
  src/sha256.cpp)
if(ATROUS_WITH_OPENVINO)
  list(APPEND ATROUS_SOURCES src/openvino_engine.cpp src/openvino_qdq.cpp)
endif()
if(ATROUS_WITH_CUDA)
  include(cmake/cuda.cmake)
endif()
if(ATROUS_WITH_TENSORRT)
  include(cmake/tensorrt.cmake)
  list(APPEND ATROUS_SOURCES src/cuda/tensorrt_engine.cpp)
endif()

set(schema_file "${ATROUS_ROOT}/manifest.schema.json")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${schema_file}" "${ATROUS_ROOT}/__init__.py")
file(READ "${schema_file}" ATROUS_BUNDLE_SCHEMA)
configure_file(src/bundle_schema.hpp.in generated/bundle_schema.hpp @ONLY)
configure_file(src/version.hpp.in generated/version.hpp @ONLY)
