# SPDX-License-Identifier: Apache-2.0
# The interface packages of ROS 2 from PyPI export *__rosidl_generator_py targets that name the include directories of
# the machine which built the wheels. CMake refuses to use a target with an include directory that does not exist, so
# those entries are dropped here. On an installed ROS 2 every directory exists and nothing changes.
get_property(_gr00t_ros_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(_gr00t_ros_target IN LISTS _gr00t_ros_targets)
  if(_gr00t_ros_target MATCHES "__rosidl_generator_py$")
    get_target_property(_gr00t_ros_includes ${_gr00t_ros_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(_gr00t_ros_includes)
      set(_gr00t_ros_present "")
      foreach(_gr00t_ros_include IN LISTS _gr00t_ros_includes)
        if(_gr00t_ros_include MATCHES "^\\$<" OR EXISTS "${_gr00t_ros_include}")
          list(APPEND _gr00t_ros_present "${_gr00t_ros_include}")
        endif()
      endforeach()
      set_target_properties(${_gr00t_ros_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_gr00t_ros_present}")
    endif()
  endif()
endforeach()
