# SPDX-License-Identifier: Apache-2.0
"""Names the files in which a test failed; fails when there is no such file, or no result."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(path: str) -> int:
    """Reads one JUnit file of pytest."""
    if not Path(path).is_file():
        return 1
    cases = ElementTree.parse(path).getroot().findall(".//testcase")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    modules = [(case.get("classname") or "").replace(".", "/") + ".py" for case in failed]
    files = [module for module in dict.fromkeys(modules) if Path(module).is_file()]
    print(*files)
    return 0 if files else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
