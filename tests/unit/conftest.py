"""Hypothesis profiles: repeatable without files; HYPOTHESIS_PROFILE=search runs more examples."""

import os

from hypothesis import settings

settings.register_profile("unit", deadline=None, database=None, derandomize=True, max_examples=60)
settings.register_profile("search", deadline=None, database=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))
