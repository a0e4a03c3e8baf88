"""Random sequences of verbs and faults keep the protocol's invariants, on every storage."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.storage.model import Protocol

SETTINGS = settings(max_examples=200, stateful_step_count=40, derandomize=True, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))


@pytest.mark.slow
def test_the_protocol_keeps_its_promises(kit):
    class Here(Protocol):
        pass

    Here.kit = kit
    run_state_machine_as_test(Here, settings=SETTINGS)
