"""The three TCP ports of a server: chosen, checked before the start, turned into addresses to connect to; and a port that
several servers share.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trireme_server.errors import OptionError, PortInUseError

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # an address to listen on -> where to reach it from here


@dataclass(frozen=True)
class Ports:
    """gRPC, HTTP and metrics port, all different, all of them free when this was made by ``choose_ports``."""

    grpc: int
    http: int
    metrics: int


def choose_ports(
    host: str, *, grpc: int, http: int, metrics: int, shares_grpc: bool = False, http_host: str | None = None
) -> Ports:
    """Checks the given ports on ``host`` and picks free ones where 0 is given; a shared one for gRPC is left as it is.

    Args:
        http_host: where HTTP listens; None for ``host``.

    Raises:
        OptionError: a number out of 0..65535, one number given twice, or a host that cannot be listened on.
        PortInUseError: a port is taken; names the port and the flag.
    """
    asked = {"--grpc-port": grpc, "--http-port": http, "--metrics-port": metrics}
    fixed = [port for port in asked.values() if port]
    if len(set(fixed)) != len(fixed):
        numbers = ", ".join(f"{flag} {port}" for flag, port in asked.items())
        raise OptionError(f"the three ports must differ, got {numbers}")
    held: list[socket.socket] = []
    try:
        if shares_grpc:
            del asked["--grpc-port"]
        for flag, port in asked.items():
            held.append(bind(http_host or host if flag == "--http-port" else host, port, flag))
        chosen = [sock.getsockname()[1] for sock in held]
        return Ports(*((grpc, *chosen) if shares_grpc else chosen))
    finally:
        for sock in held:
            sock.close()


def reachable(host: str) -> str:
    """The address under which a server listening on ``host`` is reached from this machine."""
    return ANY.get(host, host)


def loopback(host: str) -> str:
    """An address that only this machine reaches, of the family of ``host``; itself if it is one."""
    if is_ipv6(host):
        return "::1"
    return host if host.startswith("127.") else "127.0.0.1"


def is_ipv6(host: str) -> bool:
    """Whether ``host`` is an IPv6 address: no IPv4 address or name has a colon."""
    return ":" in host


def address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def listens(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether something accepts connections at ``host:port``."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def bind(host: str, port: int, flag: str) -> socket.socket:
    """Returns a socket bound to ``port``, or to a free one if that is 0.

    Raises:
        OptionError: a number out of 0..65535, or a host that cannot be listened on.
        PortInUseError: the port is taken; names the port and the flag.
    """
    if not 0 <= port <= 65535:
        raise OptionError(f"{flag} is {port}, allowed are 1 to 65535, or 0 for any free port")
    sock = socket.socket(socket.AF_INET6 if is_ipv6(host) else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to a server
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise _bind_error(error, host, port, flag) from error
    return sock


@contextmanager
def shared_port(host: str, port: int, flag: str) -> Iterator[int]:
    """Holds a port for several servers that will listen on it; yields it, or a free one for 0.

    Raises:
        OptionError, PortInUseError: as ``bind``.
    """
    with bind(host, port, flag) as sock:  # alone, and so refused where somebody else shares it already
        number = sock.getsockname()[1]
    with socket.socket(sock.family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((host, number))
        except OSError as error:
            raise _bind_error(error, host, number, flag) from error
        yield number


def _bind_error(error: OSError, host: str, port: int, flag: str) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(f"port {port} on {host} is already in use; choose another with {flag}")
    if error.errno == errno.EACCES:
        return OptionError(f"{flag} is {port}, but this user may not listen below 1024; choose a higher port")
    return OptionError(f"--host is {host!r}, which is no IP address or name of this machine ({error})")
