# nlohmann_json::nlohmann_json: the CMake package of a system, or the headers of PyPI's wheel, which has no such package.
set(ATROUS_NLOHMANN_JSON_INCLUDE_DIR "" CACHE PATH "Folder that has nlohmann/json.hpp, where CMake does not find it")
if(ATROUS_NLOHMANN_JSON_INCLUDE_DIR)
  set(json_headers "${ATROUS_NLOHMANN_JSON_INCLUDE_DIR}")
else()
  find_package(nlohmann_json 3.10 QUIET)
  if(NOT nlohmann_json_FOUND)
    # Also of the repository's own environment.
    file(GLOB json_headers "${ATROUS_ROOT}/.venv/lib/python3*/site-packages/nlohmann_json/include")
  endif()
endif()

if(json_headers)
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json INTERFACE "${json_headers}")
elseif(NOT nlohmann_json_FOUND)
  message(FATAL_ERROR
    "nlohmann-json 3.10 or newer was not found. Install it (Debian: nlohmann-json3-dev; or pip install nlohmann-json) and say where its headers are:\n"
    "  -DATROUS_NLOHMANN_JSON_INCLUDE_DIR=$(python -c 'import nlohmann_json, pathlib; print(pathlib.Path(nlohmann_json.__file__).parent / \"include\")')")
endif()
