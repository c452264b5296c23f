"""How Prometheus calls our signals: the default translation of OTLP names (`UnderscoreEscapingWithSuffixes`).

Boards, alert rules and the scrape endpoint take names from here, so that a pushed and a scraped metric are
one. Annotations in braces (``{step}``) are no unit and leave no suffix.
"""

from __future__ import annotations

import re

from arobust_otel.model.signals import COUNTER, DICTIONARY, GAUGE

_UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "By": "bytes",
    "bit": "bit",
    "Cel": "celsius",
    "W": "watts",
    "J": "joules",
    "Hz": "hertz",
    "V": "volts",
    "%": "percent",
}
_PER = {"s": "second", "min": "minute", "h": "hour"}
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_]+")
_ANNOTATED = re.compile(r"[{}]")


def label_name(attribute: str) -> str:
    """The label of an attribute.

    >>> label_name("arobust.process_group.name")
    'arobust_process_group_name'
    """
    return _FORBIDDEN.sub("_", attribute)


def metric_name(signal: str) -> str:
    """The metric of a signal of the dictionary.

    >>> [metric_name(name) for name in ("arobust.training.step", "process.disk.io", "system.cpu.utilization")]
    ['arobust_training_step', 'process_disk_io_bytes_total', 'system_cpu_utilization_ratio']

    Raises:
        KeyError: the dictionary does not know the signal.
    """
    row = DICTIONARY[signal]
    words = [word for word in re.split(r"[^a-zA-Z0-9]+", signal) if word]
    main, _, per = row.unit.partition("/")
    if not _ANNOTATED.search(main) and main not in ("", "1"):
        words += _unless_there(words, _UNITS.get(main, _FORBIDDEN.sub("_", main)))
    if per and not _ANNOTATED.search(per):
        named = _unless_there(words, _PER.get(per, per))
        words += ["per", *named] if named else []
    if row.kind == GAUGE and row.unit == "1":
        words = [word for word in words if word != "ratio"] + ["ratio"]
    if row.kind == COUNTER:
        words = [word for word in words if word != "total"] + ["total"]
    return "_".join(words)


def _unless_there(words: list[str], suffix: str) -> list[str]:
    return [] if suffix in words else [suffix]
