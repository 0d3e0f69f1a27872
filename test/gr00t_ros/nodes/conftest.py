# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that start real nodes: own domain, processes that end, a graph to talk with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support_processes import ProcessStarter, RosGraph, claim_domain


@pytest.fixture
def domain() -> Iterator[int]:
    number, lock = claim_domain()
    try:
        yield number
    finally:
        lock.close()


@pytest.fixture
def processes(domain: int) -> Iterator[ProcessStarter]:
    starter = ProcessStarter(domain)
    try:
        yield starter
    finally:
        starter.close()


@pytest.fixture
def graph(domain: int) -> Iterator[RosGraph]:
    with RosGraph(domain) as running:
        yield running
