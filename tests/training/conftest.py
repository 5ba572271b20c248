"""Training reads features through the cache, so that every test of the room has one of its own."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _cache(cache_of_our_own):
    return cache_of_our_own
