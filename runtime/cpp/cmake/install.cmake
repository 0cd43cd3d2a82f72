# make install: the library, its headers, find_package(atrous CONFIG) and pkg-config.
install(TARGETS atrous EXPORT atrousTargets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY include/atrous DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/atrous")
install(EXPORT atrousTargets NAMESPACE atrous:: DESTINATION "${package_folder}")
configure_package_config_file(cmake/atrousConfig.cmake.in atrousConfig.cmake INSTALL_DESTINATION "${package_folder}")
write_basic_package_version_file(atrousConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/atrousConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/atrousConfigVersion.cmake"
  DESTINATION "${package_folder}")

configure_file(cmake/atrous.pc.in atrous.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/atrous.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
install(FILES "${ATROUS_ROOT}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/atrous")
