// SPDX-License-Identifier: Apache-2.0
// What a C++ package sees of gr00t_ros: fills an ActionChunk, prints it, and asks for its type support.
#include <iostream>

#include "gr00t_ros/msg/action_chunk.hpp"
#include "rosidl_typesupport_cpp/message_type_support.hpp"

int main()
{
  gr00t_ros::msg::ActionGroup group;
  group.key = "arm";
  group.representation = gr00t_ros::msg::ActionGroup::JOINT_POSITION;
  group.names = {"shoulder_pan", "elbow_flex"};
  group.values = {0.5, -0.25, 0.75, -0.5};
  group.width = 2;

  gr00t_ros::msg::ActionChunk chunk;
  chunk.sequence = 42;
  chunk.instruction = "pick up the cube";
  chunk.horizon = 2;
  chunk.groups.push_back(group);

  std::cout << gr00t_ros::msg::to_yaml(chunk) << std::endl;
  const auto * support = rosidl_typesupport_cpp::get_message_type_support_handle<gr00t_ros::msg::ActionChunk>();
  return support != nullptr && support->typesupport_identifier != nullptr ? 0 : 1;
}
