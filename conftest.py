"""What holds for every test of the workspace."""

from hypothesis import settings

# How long an example takes says more about the machine than about the code; tools/bench measures what must be fast.
settings.register_profile("workspace", deadline=None)
settings.load_profile("workspace")
