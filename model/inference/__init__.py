# SPDX-License-Identifier: Apache-2.0
"""Running the network for one job, a chunk now: which engine, on which device, in which precision.

`opening` is the way in. Nothing is imported here, so that a part can be used without what the others need.
"""
