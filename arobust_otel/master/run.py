"""`arobust master`: check everything first, bind, start the roles, stop them in order."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from dataclasses import replace

from arobust_otel import plugins
from arobust_otel.checked import Address
from arobust_otel.config import MasterSettings
from arobust_otel.errors import ConfigurationError
from arobust_otel.master.control import log
from arobust_otel.master.destinations import build_forwarder
from arobust_otel.master.engine import build_engine
from arobust_otel.master.layout import Layout, write_json
from arobust_otel.master.receive import configuration
from arobust_otel.master.roles import configure_logging
from arobust_otel.master.supervisor import RoleFailed, Supervisor
from arobust_otel.master.wire import DEFAULT_ENGINE, Orders
from arobust_otel.receiver.auth import require_protection

AGAIN_SECONDS = 1.0
SERVED = ("otlp_http", "otlp_grpc", "api")


def run(settings: MasterSettings, engine: str = DEFAULT_ENGINE) -> int:
    """Run a master until SIGTERM or SIGINT.

    Args:
        settings: checked settings.
        engine: ``module:function`` that builds the engine, see `wire.Orders`.

    Returns:
        Exit code: 0 after a regular stop, 1 where a role could not be kept alive, 2 where it could not start.

    Raises:
        ConfigurationError: a setting cannot work on this machine: names the key and the remedy.
    """
    configure_logging()
    settings = replace(settings, data_dir=settings.data_dir.absolute())
    _check(settings, engine)
    layout = Layout(settings.data_dir)
    layout.make()
    lock = layout.lock()
    listeners: dict[str, socket.socket] = {}
    try:
        for key in SERVED:
            listeners[key] = _bind(key, getattr(settings, key))
        return asyncio.run(_run(settings, engine, lock, listeners))
    finally:
        for listener in listeners.values():
            listener.close()
        layout.master.unlink(missing_ok=True)
        os.close(lock)


def _check(settings: MasterSettings, engine: str) -> None:
    tls = bool(settings.tls_certificate and settings.tls_key)
    for key in SERVED:
        require_protection(key, getattr(settings, key).host, token=settings.token, tls=tls)
    for key, path in (("tls_certificate", settings.tls_certificate), ("tls_key", settings.tls_key)):
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError(key, path, "a PEM file that can be read")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ConfigurationError("tls_key", settings.tls_key, "given together with tls_certificate")
    for forwarder in settings.forwarders:
        plugins.close(build_forwarder(forwarder))
    if engine == DEFAULT_ENGINE:
        build_engine(configuration(settings))


def _bind(key: str, address: Address) -> socket.socket:
    """A listening socket that the roles inherit: a role that is started again loses no connection attempt.

    gRPC cannot take one over: its socket is bound and never listens. It keeps the port from everybody but a
    server that is told to bind there, while the role that does is away.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if key != "otlp_grpc":
            listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _unusable(key, address, error) from None
    listener.set_inheritable(True)
    return listener


def _unusable(key: str, address: Address, error: OSError) -> ConfigurationError:
    option = f"--{key.replace('_', '-')}"
    if error.errno == errno.EADDRINUSE:
        expected = (
            f"a free port: {address.port} is taken; end what listens there, or choose with {option} HOST:PORT"
        )
    else:
        expected = f"an address of this machine ({error.strerror or error}); choose with {option} HOST:PORT"
    return ConfigurationError(key, str(address), expected)


async def _run(settings: MasterSettings, engine: str, lock: int, listeners: dict[str, socket.socket]) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    handles = {"lock": lock, **{key: listener.fileno() for key, listener in listeners.items()}}
    announcer = _Announcer(settings, listeners)
    supervisor = Supervisor(Orders(settings, handles, engine), announcer.announce)
    announcer.supervisor = supervisor
    started = asyncio.create_task(supervisor.start())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([started, stopped], return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            started.result()
            announcer.begin()
            await stopped
        return 0
    except RoleFailed as failure:
        log.error("%s", failure)
        return 2 if failure.code == 2 else 1
    finally:
        started.cancel()
        stopped.cancel()
        for listener in listeners.values():
            listener.close()
        await supervisor.stop()


class _Announcer:
    """Writes `master.json` when everything is ready, and again when a role was started again."""

    def __init__(self, settings: MasterSettings, listeners: dict[str, socket.socket]) -> None:
        scheme = "https" if settings.tls_certificate else "http"
        places = {key: str(Address(*listener.getsockname()[:2])) for key, listener in listeners.items()}
        self.urls = {
            key: place if key == "otlp_grpc" else f"{scheme}://{place}" for key, place in places.items()
        }
        self.layout = Layout(settings.data_dir)
        self.supervisor: Supervisor | None = None
        self.ready = False

    def begin(self) -> None:
        """Everything is ready for the first time."""
        self.ready = True
        self.announce()
        log.info(
            "master ready: OTLP/HTTP on %s, OTLP/gRPC on %s, queries on %s, data in %s",
            self.urls["otlp_http"],
            self.urls["otlp_grpc"],
            self.urls["api"],
            self.layout.data_dir,
        )

    def announce(self) -> None:
        """Write the file; called for every role that got ready."""
        if not self.ready or self.supervisor is None:
            return
        roles = self.supervisor.roles
        values = {
            "pid": os.getpid(),
            **self.urls,
            "roles": {name: role.pid for name, role in roles.items()},
            "restarts": {name: role.restarts for name, role in roles.items()},
        }
        try:
            write_json(self.layout.master, values)
        except OSError as error:
            log.error("%s is not written, and tried again: %s", self.layout.master.name, error)
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.announce)


def main(settings: MasterSettings, engine: str = DEFAULT_ENGINE) -> int:
    """`run` for a command: a configuration error becomes one line and exit code 2."""
    try:
        return run(settings, engine)
    except ConfigurationError as error:
        sys.stderr.write(f"arobust master: {error}\n")
        return 2
