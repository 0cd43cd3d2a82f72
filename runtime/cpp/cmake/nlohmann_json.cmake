# nlohmann_json::nlohmann_json: the CMake package of a system, or the headers of PyPI's wheel, which has no such package.
find_package(nlohmann_json 3.10 QUIET)
if(NOT nlohmann_json_FOUND)
  # On CMAKE_PREFIX_PATH, or in the repository's own environment.
  file(GLOB json_hints "${ATROUS_ROOT}/.venv/lib/python3*/site-packages/nlohmann_json/include")
  find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp HINTS ${json_hints})
  if(NOT NLOHMANN_JSON_INCLUDE_DIR)
    message(FATAL_ERROR
      "nlohmann-json 3.10 or newer was not found. Install it (Debian: nlohmann-json3-dev; or pip install nlohmann-json) and say where it is:\n"
      "  -DNLOHMANN_JSON_INCLUDE_DIR=$(python -c 'import nlohmann_json, pathlib; print(pathlib.Path(nlohmann_json.__file__).parent / \"include\")')")
  endif()
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json INTERFACE "${NLOHMANN_JSON_INCLUDE_DIR}")
endif()
