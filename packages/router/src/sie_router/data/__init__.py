"""Carries requests: reads the snapshot once, does what the decision says."""
