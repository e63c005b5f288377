"""What SIE's clients, routers and workers say to each other.

The only package that all others may import. It holds values and pure functions: no sockets, no clock, no environment.
Import the module you need (`sie_protocol.errors`, `sie_protocol.codec`, ...); only `sie_protocol.arrays` needs numpy.
"""

from sie_protocol.versions import VERSION

__version__ = VERSION
