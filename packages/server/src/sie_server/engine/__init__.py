"""Runs models: queues, the CPU pool, the device and the life of each model. Knows nothing of HTTP."""
