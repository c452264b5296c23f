"""Every error this project raises on purpose, drawn as a tree.

ArobustError
├── ConfigurationError      a setting is wrong: names the key, the value and what would be right
├── BeaconError             a beacon file cannot be made, or is not one
├── JournalError            the journal cannot be opened or written
│   └── JournalLocked       another process already appends to it
├── DecodeError             bytes are not the OTLP message they claim to be
├── CapabilityError     a source of evidence is not to be had here: names the remedy
├── CaptureError            stacks of a process could not be taken
└── DeliveryError           a batch did not reach its destination
    ├── RetryableDelivery   the same bytes may succeed later
    │   ├── OverloadedDelivery  ... and fewer of them sooner
    │   └── UncertainDelivery   ... unless they are why it failed
    └── PermanentDelivery   the same bytes will never be accepted
        └── TooOldDelivery      ... and nothing that is older, either

Nothing else lives here; modules raise these and `guard` contains them.
"""

from __future__ import annotations

from arobust_otel.redaction import shown


class ArobustError(Exception):
    """Root of the tree: catching it catches everything this project raises on purpose."""


class ConfigurationError(ArobustError):
    """A setting is wrong.

    Args:
        key: dotted name of the setting, as the user wrote it.
        value: what was given.
        expected: what would be right, in words that name the remedy.
    """

    def __init__(self, key: str, value: object, expected: str) -> None:
        """Keep the three parts, so that a command can print them in its own form; of the value no secret."""
        self.key = key
        self.value = shown(key, value)
        super().__init__(f"{key} = {self.value!r} is not valid: {expected}")
        self.expected = expected


class BeaconError(ArobustError):
    """A beacon file cannot be made, or is not one."""


class JournalError(ArobustError):
    """The journal cannot be opened or written."""


class JournalLocked(JournalError):
    """Another process already appends to this journal."""


class DecodeError(ArobustError):
    """Bytes are not the OTLP message that they claim to be."""


class CapabilityError(ArobustError):
    """A source of evidence is not to be had on this machine.

    Args:
        capability: short code, for example ``ptrace``.
        reason: what is missing, in plain words.
        remedy: what would restore it, in plain words.
    """

    def __init__(self, capability: str, reason: str, remedy: str) -> None:
        """Keep the parts: an event and the heartbeat carry them."""
        super().__init__(f"{reason}; {remedy}")
        self.capability = capability
        self.reason = reason
        self.remedy = remedy


class CaptureError(ArobustError):
    """Stacks of a process could not be taken; the message says why and what would help."""


class DeliveryError(ArobustError):
    """A batch did not reach its destination."""


class RetryableDelivery(DeliveryError):
    """The same bytes may succeed later.

    Args:
        reason: one sentence for a log line.
        retry_after_seconds: the server's own hint, None where it gave none.
    """

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        """Keep the hint beside the reason."""
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class OverloadedDelivery(RetryableDelivery):
    """The destination lives, but this was too much for it now: less at once may succeed."""


class UncertainDelivery(RetryableDelivery):
    """The destination failed; whether by itself or because of these bytes is not known."""


class PermanentDelivery(DeliveryError):
    """The same bytes will never be accepted: cut, drop and count, never retry."""


class TooOldDelivery(PermanentDelivery):
    """The destination takes nothing from before some time: neither these bytes nor anything that is older."""
