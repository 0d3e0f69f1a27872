# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines: reaching TensorRT, building, running, and knowing what an engine was built from.

No module here imports TensorRT or ONNX before one of its functions is called.
"""
