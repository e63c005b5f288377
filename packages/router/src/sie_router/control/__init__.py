"""Turns outside events into the next fleet: the only writers of the snapshot."""
