# SPDX-License-Identifier: Apache-2.0
"""The commands. Each module is one command with ``main(argv) -> exit code``; nothing imports them."""
