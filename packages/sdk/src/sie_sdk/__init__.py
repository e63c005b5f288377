"""Python client of SIE."""
