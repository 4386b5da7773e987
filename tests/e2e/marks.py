# SPDX-License-Identifier: Apache-2.0
"""Marks that a test carries."""

import os

# True on an optimised build with nothing else running: then tests may judge P99 and memory. Elsewhere they judge only
# counts.
TIMED = os.environ.get("TIDEGATE_TIMED") == "1"


def long(function):
    """For a test that takes over three seconds: it runs only with --long. Its smallest form stays in the gate."""
    function.long = True
    return function
