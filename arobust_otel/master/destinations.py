"""Making a configured forwarder, with mistakes named as the user wrote them."""

from __future__ import annotations

from typing import Any

from arobust_otel import plugins
from arobust_otel.config import ForwarderSettings
from arobust_otel.errors import ConfigurationError


def build_forwarder(settings: ForwarderSettings) -> Any:
    """The forwarder of one section.

    Raises:
        ConfigurationError: there is no such type, or an option is wrong; names section and option.
    """
    parts = plugins.discover("forwarders")
    section = f"forwarders.{settings.name}"
    if settings.type not in parts:
        raise ConfigurationError(f"{section}.type", settings.type, f"one of {', '.join(parts)}")
    try:
        return plugins.build(parts[settings.type], settings.options)
    except ConfigurationError as error:
        option = error.key.removeprefix(f"forwarders.{settings.type}.")
        raise ConfigurationError(f"{section}.{option}", error.value, error.expected) from None
