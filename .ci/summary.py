# SPDX-License-Identifier: Apache-2.0
"""Says at the end of a CI run how many tests ran and were skipped, and why."""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def reason(skipped: ElementTree.Element) -> str:
    """Why a test was skipped; for a whole module pytest hides the reason at the end of the element's text."""
    message = skipped.get("message") or "no reason"
    if message == "collection skipped":
        message = (skipped.text or message).rpartition("Skipped: ")[2].rstrip("'\")")
    return " ".join(message.split())


def main(paths: list[str]) -> int:
    """Reads pytest's JUnit files; fails when one is missing or holds no passed test."""
    silent = []
    for path in map(Path, paths):
        if not path.is_file():
            print(f"{path.stem}: no result")
            silent.append(path.stem)
            continue
        cases = ElementTree.parse(path).getroot().findall(".//testcase")
        skipped = Counter(reason(element) for case in cases for element in case.findall("skipped"))
        failed = sum(
            1 for case in cases if case.find("failure") is not None or case.find("error") is not None
        )
        passed = len(cases) - failed - skipped.total()
        print(f"{path.stem}: {passed} passed, {failed} failed, {skipped.total()} skipped")
        for why, count in skipped.most_common():
            print(f"    {count} skipped: {why}")
        if not passed:
            silent.append(path.stem)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
