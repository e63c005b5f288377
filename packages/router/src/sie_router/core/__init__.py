"""Decisions over values: no await, no clock, no environment, no log."""
