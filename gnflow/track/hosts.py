"""The host names that MLflow's server accepts. It refuses all others as a protection against DNS rebinding."""

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress

EVERY = ("0.0.0.0", "::")
LOCAL = ("localhost", "127.0.0.1", "[::1]")
PRIVATE = ("192.168.*", "10.*", *(f"172.{part}.*" for part in range(16, 32)))  # the form that MLflow uses


def is_loopback(host: str) -> bool:
    """Return whether a server on this address can be reached only from this machine."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def list_names(host: str, allowed: Sequence[str] = ()) -> list[str]:
    """List the known names of this machine, the address that is served on, and the `allowed` names."""
    own = [] if is_loopback(host) else [*_find_own_names(), *([] if host in EVERY else [_bracket(host)])]
    return list(dict.fromkeys([*LOCAL, *own, *allowed]))


def make_settings(host: str, allowed: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables for MLflow's server; empty if only this machine can reach it, which is MLflow's default."""
    if is_loopback(host) and not allowed:
        return {}
    known = list_names(host, allowed)
    # Both with and without a port, since a tunnel changes the port. In a pattern, `[` would begin a set of characters.
    forms = [form for name in known for form in (name, f"{name.replace('[', '[[]')}:*")]
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*forms, *PRIVATE]),
        # Requests of the page itself have its own address as their origin.
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
            f"{way}://{form}" for way in ("http", "https") for form in forms
        ),
    }


def _find_own_names() -> Iterator[str]:
    """Return the host name, the full name, and the addresses that they resolve to."""
    name = socket.gethostname()
    yield from (name.lower(), socket.getfqdn().lower())
    with suppress(OSError):
        for family, _, _, _, place in socket.getaddrinfo(name, None):
            if family in (socket.AF_INET, socket.AF_INET6):
                yield _bracket(str(place[0]).partition("%")[0])
    yield from _find_outward_address()


def _find_outward_address() -> Iterator[str]:
    """Return the address by which others see this machine. Choosing a route sends nothing."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # an address that is reserved for documentation
        yield str(probe.getsockname()[0])


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
