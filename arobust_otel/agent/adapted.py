"""Collectors of other people: the small form with `collect_data`, and results that are not items yet.

What a result means is said in `items_of`, once; docs/collectors.md repeats it for users. Nothing here runs or
times a collector.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Event, LogLine, Point, StackCapture
from arobust_otel.plugins import Clock, Item, Node

ITEM_KINDS = (Point, Event, LogLine, StackCapture)
NOT_ENABLED = "off: its is_enabled() says no"


class AdaptedCollector:
    """A collector with `collect_data` and, where it has one, `is_enabled`, in our own form.

    Args:
        name: under which it was found.
        part: the object that somebody else wrote.
    """

    def __init__(self, name: str, part: Any) -> None:
        self.name = name
        self.note = ""
        self._part = part

    def collect(self, now: Clock, node: Node) -> Iterable[Any]:
        """What `collect_data` returns; nothing where `is_enabled` says no."""
        self.note = "" if _is_enabled(self._part) else NOT_ENABLED
        return () if self.note else (self._part.collect_data(),)

    def __getattr__(self, name: str) -> Any:
        """`period_seconds`, `acknowledge` and `close`, where the object has them."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._part, name)


def adapt(name: str, part: Any) -> Any:
    """The object itself where it has `collect`, else in our form.

    Raises:
        TypeError: it has neither `collect` nor `collect_data`.
    """
    if callable(getattr(part, "collect", None)):
        return part
    if callable(getattr(part, "collect_data", None)):
        return AdaptedCollector(name, part)
    raise TypeError(f"{type(part).__name__} has neither collect(now, node) nor collect_data()")


def items_of(name: str, value: Any, at_ns: int) -> Iterator[Item]:
    """What a value that a collector returned or yielded stands for.

    - a Point, Event, LogLine or StackCapture: itself;
    - None or an empty text: nothing;
    - a text: one log record, with the collector's name as attribute;
    - a mapping: one gauge for each number, ``NAME.key``, nested keys joined by dots, a key that has a dot
      already as it is; true and false are 1 and 0, None is left out, and texts become attributes of these
      gauges. A mapping without a number is one log record with its JSON;
    - any other iterable: what each of its elements stands for.

    Args:
        name: of the collector.
        value: what it gave.
        at_ns: time of what has no time of its own.

    Raises:
        TypeError: the value is none of these.
    """
    if isinstance(value, ITEM_KINDS):
        yield value
    elif value is None:
        return
    elif isinstance(value, str):
        if value.strip():
            yield LogLine(value, at_ns, "", 0, {signals.COLLECTOR: name})
    elif isinstance(value, Mapping):
        yield from _of_mapping(name, value, at_ns)
    elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        for element in value:
            yield from items_of(name, element, at_ns)
    else:
        raise TypeError(
            f"{type(value).__name__} is none of Point, Event, LogLine, text, mapping, or a list of these"
        )


def _of_mapping(name: str, value: Mapping[Any, Any], at_ns: int) -> Iterator[Item]:
    numbers: dict[str, float | int] = {}
    texts: Attributes = {}
    for key, element in value.items():
        for path, leaf in _leaves(str(key), element):
            if isinstance(leaf, (bool, int, float)):
                metric = path if "." in str(key) else f"{name}.{path}"
                numbers[metric] = int(leaf) if isinstance(leaf, bool) else leaf
            elif isinstance(leaf, str):
                texts[path] = leaf
    if value and not numbers:
        body = json.dumps(value, default=str)
        yield LogLine(body, at_ns, "", 0, {signals.COLLECTOR: name})
    for metric, number in numbers.items():
        yield Point(metric, number, at_ns, dict(texts))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, element in value.items():
        yield from _leaves(f"{path}.{key}", element)


def _is_enabled(part: Any) -> bool:
    answer = getattr(part, "is_enabled", True)
    return bool(answer() if callable(answer) else answer)
