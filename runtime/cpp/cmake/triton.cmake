# The backend of Triton Inference Server, over the C interface of libatrous like any other program.
set(TRITON_INCLUDE "" CACHE PATH "Triton's own headers, a folder with triton/core; by default those declared here")
if(TRITON_INCLUDE)
  find_path(TRITON_HEADERS triton/core/tritonbackend.h PATHS "${TRITON_INCLUDE}" NO_DEFAULT_PATH REQUIRED)
else()
  set(TRITON_HEADERS "${CMAKE_CURRENT_SOURCE_DIR}/src/triton/standin")
endif()

add_library(triton_atrous SHARED src/triton/backend.cpp src/triton/instance.cpp src/triton/model.cpp)
target_include_directories(triton_atrous SYSTEM PRIVATE "${TRITON_HEADERS}")
target_link_libraries(triton_atrous PRIVATE atrous nlohmann_json::nlohmann_json)
target_compile_options(triton_atrous PRIVATE -Wall -Wextra)
if(ATROUS_WARNINGS_AS_ERRORS)
  target_compile_options(triton_atrous PRIVATE -Werror)
endif()
set_target_properties(triton_atrous PROPERTIES
  LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/cmake/triton.map"
  INSTALL_RPATH "$ORIGIN;$ORIGIN/../../../")
# What it lacks, the server has.
target_link_options(triton_atrous PRIVATE "LINKER:--version-script=${CMAKE_CURRENT_SOURCE_DIR}/cmake/triton.map")

# As in /opt/tritonserver: a folder to hand to --backend-directory.
install(TARGETS triton_atrous LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}/triton/backends/atrous")
