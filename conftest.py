"""What holds for every test of the workspace."""

import signal

from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code; tools/bench measures what must be fast.
settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")

# A shell that starts the suite in the background leaves it, and each program that a test starts, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
