"""How many examples a property test takes: few by day, many at night."""

from hypothesis import settings

# tests/conftest.py loads "dev"; HYPOTHESIS_PROFILE or --hypothesis-profile names another.
# The first example of a test also loads and compiles what it needs, so none has a deadline.
settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("nightly", max_examples=500, deadline=None)


def is_night() -> bool:
    return settings.get_current_profile_name() == "nightly"


def examples(nightly: int, by_day: int = 25) -> settings:
    """The settings of a test that takes `nightly` examples at night, and at most 25 by day."""
    return settings(max_examples=nightly if is_night() else min(nightly, by_day))
