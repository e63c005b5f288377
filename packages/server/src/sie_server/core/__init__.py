"""Decisions of the worker, as functions over values: no IO, no clock, no torch."""
