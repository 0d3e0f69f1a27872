# SPDX-License-Identifier: Apache-2.0
"""The parameters of the policy node. ``config/policy.yaml`` says the same at more length."""

from __future__ import annotations

from gr00t_ros.nodes.parameters import ParameterSpec
from gr00t_ros.observation import MAX_INSTRUCTION_CHARS, check_instruction

# Values of the parameter letterbox, and what they replace in the checkpoint's processor. Not on and off,
# which YAML reads as true and false.
LETTERBOX: dict[str, dict[str, bool]] = {
    "auto": {},
    "always": {"letterbox": True},
    "never": {"letterbox": False},
}
# Values of the parameter mode.
CONTINUOUS, TASKS = "continuous", "tasks"


def _usable_instruction(text: str) -> None:
    if text.strip():
        check_instruction(text)


PARAMETERS = (
    ParameterSpec("checkpoint", "", "directory of a checkpoint, or a hub id where the machine is online"),
    ParameterSpec(
        "backend",
        "auto",
        "inference engine: auto (a verified TensorRT engine, else PyTorch on CUDA, else on the CPU), "
        "tensorrt or pytorch",
    ),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:N"),
    ParameterSpec(
        "precision",
        "auto",
        "auto (what the TensorRT engine has; else bfloat16 on CUDA, float32 on the CPU), bfloat16, float32, "
        "fp8, int8 or nvfp4",
    ),
    ParameterSpec(
        "engine",
        "",
        "directory of a TensorRT engine, made by build_engine; empty looks for the folder tensorrt in the "
        "checkpoint",
    ),
    ParameterSpec(
        "compile",
        "auto",
        "compile PyTorch's layers: auto (on CUDA, when it measures faster), on or off",
        choices=("auto", "on", "off"),
    ),
    ParameterSpec(
        "letterbox",
        "auto",
        "pad camera images to a square: auto (as processor_config.json says, else always), always or never",
        choices=tuple(LETTERBOX),
    ),
    ParameterSpec("num_steps", 0, "denoising steps; 0 takes the checkpoint's number", "", 0, 100),
    ParameterSpec("seed", 0, "seed of the chunk noise, which is a function of it and of the frame's stamp"),
    ParameterSpec(
        "real_time_chunking",
        True,
        "chunks begin with the plan that the executor is committed to, so that nothing jumps where one takes "
        "over; false leaves each chunk to itself",
    ),
    ParameterSpec(
        "rate", 0.0, "chunks wanted per second; 0 plans back to back", "Hz", 0.0, 100.0, runtime=True
    ),
    ParameterSpec(
        "replan_below",
        0.0,
        "plan anew when less than this is left of the executor's plan, beyond the time that a chunk takes; 0 "
        "does not wait for that",
        "s",
        0.0,
        60.0,
        runtime=True,
    ),
    ParameterSpec(
        "mode",
        CONTINUOUS,
        "when to plan: continuous (whenever there is an instruction) or tasks (only during a goal of "
        "run_task)",
        choices=(CONTINUOUS, TASKS),
    ),
    ParameterSpec(
        "still_time",
        0.0,
        "a task ends when the measured joints have stood still for this long while the plan was followed; 0 "
        "never ends it",
        "s",
        0.0,
        3600.0,
        runtime=True,
    ),
    ParameterSpec(
        "still_threshold",
        0.02,
        "a joint that stays within a range of this width stands still",
        "rad or m",
        0.0001,
        1.0,
        runtime=True,
    ),
    ParameterSpec(
        "task_patience",
        5.0,
        "a task ends as a fault when no chunk could be made, or none was followed, for this long",
        "s",
        0.1,
        3600.0,
        runtime=True,
    ),
    ParameterSpec(
        "instruction",
        "",
        f"task text, at most {MAX_INSTRUCTION_CHARS} characters; the newest text wins, here or on the "
        "topic, and an empty one stops planning",
        runtime=True,
        verify=_usable_instruction,
    ),
)
