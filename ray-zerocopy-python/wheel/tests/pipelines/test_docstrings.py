"""The examples in docstrings."""

import doctest

import ray_zerocopy._wrappers


def test_examples_of_docstrings_run():
    found = doctest.testmod(ray_zerocopy._wrappers)
    assert found.attempted >= 5 and found.failed == 0
