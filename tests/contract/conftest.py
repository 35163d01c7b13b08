"""Makes the checks importable from the tests beside them, and switches shape checking off where users have none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import config

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Call methods without jaxtyping's checks, so that what refuses bad input is the method itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)
