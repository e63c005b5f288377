"""Loopback ports for processes that are yet to start."""

import errno
import socket
import sys

HOST = "127.0.0.1"


class PortInUseError(RuntimeError):
    """The wanted port belongs to another program."""


class Ports:
    """Picks ports and keeps them for this cluster until closed.

    A socket that is bound but does not listen keeps a port from everybody who asks for any free one, while a server
    that sets SO_REUSEADDR, as ours do, can still listen on it. Only Linux allows that; elsewhere the port is free
    again at once, and a collision shows as a crash of the process that wanted it.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self, wanted: int = 0) -> int:
        """A port on the loopback address: this one, or any free one for 0.

        Raises:
            PortInUseError: somebody else listens there, or it may not be used.
        """
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((HOST, wanted))
        except OSError as error:
            holder.close()
            found = "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
            raise PortInUseError(
                f"port {wanted} {found}; stop that program, or choose another port: sie up --port {wanted + 1}"
            ) from error
        port = int(holder.getsockname()[1])
        self._held.append(holder)
        if sys.platform != "linux":
            self.close()
        return port

    def close(self) -> None:
        """Give all ports back."""
        for holder in self._held:
            holder.close()
        self._held.clear()
