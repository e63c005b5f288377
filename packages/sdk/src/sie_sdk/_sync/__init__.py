"""The blocking client, generated from `_async` by `tools/unasync.py`."""
