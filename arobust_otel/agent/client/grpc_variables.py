"""What the `OTEL_EXPORTER_OTLP_*` variables say about a gRPC connection, where the exporters misread them.

``COMPRESSION=none`` makes an exporter raise, a file that is missing becomes the system's certificates, and a
client's key is read beside a CA only. `OTEL_EXPORTER_OTLP_TIMEOUT` is not read, by either transport: the
specification counts it in milliseconds and Python in seconds, so one value means ten seconds or a hundredth
of one. The limit of one request is `ClientSettings.call_seconds`.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import grpc
from opentelemetry.util.re import parse_env_headers

from arobust_otel.errors import ConfigurationError

_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")


def _variable(signal: str, name: str) -> str:
    """The signal's own variable first."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}")
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")


def compression(signal: str) -> grpc.Compression:
    """gzip, which every server takes, unless ``none`` is asked for, at which the exporter would raise."""
    plain = _variable(signal, "COMPRESSION").strip().lower() == "none"
    return grpc.Compression.NoCompression if plain else grpc.Compression.Gzip


def headers(signal: str) -> tuple[tuple[str, str], ...]:
    """Metadata of every call.

    Raises:
        ConfigurationError: a name or value that gRPC does not send; it would refuse every single call.
    """
    found = parse_env_headers(_variable(signal, "HEADERS"), liberal=True)
    for name, value in found.items():
        if not (_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable()):
            expected = (
                "names of letters, digits, '-', '_' and '.', printable ASCII values: gRPC takes no others"
            )
            raise ConfigurationError("OTEL_EXPORTER_OTLP_HEADERS", name, expected)
    return tuple(found.items())


def credentials(signal: str) -> grpc.ChannelCredentials | None:
    """Certificates and key, each by its own variable: the exporter reads the client's beside a CA only.

    None where a credential provider is named: the exporter loads it.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    names = ("OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER",)
    own = f"OTEL_PYTHON_EXPORTER_OTLP_GRPC_{signal.upper()}_CREDENTIAL_PROVIDER"
    if any(os.environ.get(name) for name in (*names, own)):
        return None
    certificate = _variable(signal, "CLIENT_CERTIFICATE")
    key = _variable(signal, "CLIENT_KEY") or certificate  # one file may hold both
    return _loaded(_variable(signal, "CERTIFICATE"), key, certificate)


@lru_cache(maxsize=8)
def _loaded(authority: str, key: str, certificate: str) -> grpc.ChannelCredentials:
    """The same object for the same files: then the three signals share one connection."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(authority, "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        private_key=_read(key, "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        certificate_chain=_read(certificate, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
    )


def _read(path: str, variable: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        expected = f"a PEM file that can be read ({error.strerror})"
        raise ConfigurationError(variable, path, expected) from None
