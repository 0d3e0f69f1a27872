# SPDX-License-Identifier: Apache-2.0
"""One sentence per cause, told again only after the cause has gone away."""

from __future__ import annotations

from gr00t_ros.causes import CauseLog, one_line, without_numbers


def test_a_cause_is_told_once_while_it_lasts_and_again_when_it_returns() -> None:
    told: list[str] = []
    log = CauseLog(told.append, quiet_s=0.0)
    for age in range(5):
        log.update({"stale front": f"{age} s old"})
    assert told == ["0 s old"]
    log.update({})
    log.update({"stale front": "9 s old"})
    assert told == ["0 s old", "9 s old"]


def test_what_is_new_at_once_is_one_line() -> None:
    told: list[str] = []
    log = CauseLog(told.append)
    log.update({"a": "no front", "b": "no wrist"}, "no chunks: ")
    log.update({"a": "no front", "b": "no wrist", "c": "no joints"}, "no chunks: ")
    assert told == ["no chunks: no front; no wrist", "no chunks: no joints"]


def test_a_cause_that_flickers_does_not_flood() -> None:
    told: list[str] = []
    log = CauseLog(told.append)
    for _ in range(1000):
        log.add("x", "x happened")
        log.remove("x")
    assert told == ["x happened"]


def test_endless_different_causes_do_not_grow_it() -> None:
    told: list[str] = []
    log = CauseLog(told.append)
    for i in range(10_000):
        log.add(str(i), str(i))
    assert len(log._present) <= log.MAX_KEYS
    assert len(log._told) <= log.MAX_KEYS


def test_numbers_do_not_make_a_new_cause() -> None:
    assert without_numbers("front is 0.213 s old") == without_numbers("front is 12 s old")
    assert without_numbers("found session 5, older than 7") == without_numbers(
        "found session 1, older than -2.5e3"
    )
    assert without_numbers("front is old") != without_numbers("wrist is old")


def test_an_error_becomes_one_line() -> None:
    assert one_line(ValueError("a\n  b\n  c")) == "a b c"
