# SPDX-License-Identifier: Apache-2.0
"""What a test says of itself."""

import os

# On an optimised build, with nothing else running: P99 and memory may be judged. Elsewhere only counts are.
TIMED = os.environ.get("TIDEGATE_TIMED") == "1"


def long(function):
    """For a test that takes over three seconds: it runs with --long alone. Its smallest form stays in the gate."""
    function.long = True
    return function
