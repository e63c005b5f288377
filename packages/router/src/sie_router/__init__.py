"""The router of SIE: finds a worker for each request, or asks for one."""

from sie_protocol.versions import VERSION

__version__ = VERSION
