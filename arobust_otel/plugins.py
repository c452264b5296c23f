"""What a collector, a rule and a forwarder look like to their runner, and how they are found.

A part is one module of `collectors/`, `rules/` or `forwarders/` with one public class whose `name` is the
module's name; parts of other packages are announced by entry points `arobust_otel.collectors`, `.rules` and
`.forwarders`. There is no registry to edit. Parts stay naive: threads, retries, timing and containment belong
to the runner. No part's own logic lives here.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from arobust_otel import guard
from arobust_otel.errors import ConfigurationError
from arobust_otel.model import signals
from arobust_otel.model.notice import Notice
from arobust_otel.model.samples import Attributes, Event, LogLine, Point, StackCapture

if TYPE_CHECKING:
    from arobust_otel.model.beacon import LauncherBeacon, RankBeacon

GROUPS = ("collectors", "rules", "forwarders")
# Those that are sampled together in the agent's own thread, because what they say belongs together.
CORE_COLLECTORS = ("beacons", "host", "logs", "processes", "stacks")
DEFAULT_PERIOD_SECONDS = 5.0
# Types that a configuration file can hold; a field of another type is between the agent and its collector.
_SETTABLE = frozenset({"bool", "int", "float", "str", "Path", "tuple[str, ...]", "dict[str, str]", "Any"})

Item: TypeAlias = Point | Event | LogLine | StackCapture


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of one sample, on both clocks, in nanoseconds."""

    wall_ns: int  # since the epoch, for timestamps
    mono_ns: int  # CLOCK_MONOTONIC, for ages and for what beacons say


@dataclass(frozen=True, slots=True)
class RankProcess:
    """A rank of this node as it was found at one sample.

    `beacon` is None where the rank has none (known from the launcher only). `alive` is false once no process
    with this pid and start time is left. `event_mono_ns` is when step, phase, state or a collective counter
    last changed, None without a beacon.
    """

    rank: int
    local_rank: int
    role: str
    pid: int
    start_ticks: int
    world_size: int
    incarnation: int
    alive: bool
    beacon: RankBeacon | None = None
    path: Path | None = None
    event_mono_ns: int | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Identity of the process: pid and start time, since pids are used again."""
        return self.pid, self.start_ticks

    def attributes(self) -> Attributes:
        """Attributes of this rank's points."""
        return {signals.RANK: self.rank, signals.LOCAL_RANK: self.local_rank, signals.ROLE: self.role}

    def event_attributes(self) -> Attributes:
        """Attributes of this rank's events: those of its points, and the process id."""
        return {**self.attributes(), signals.PID: self.pid}


@dataclass(frozen=True, slots=True)
class LauncherProcess:
    """A launcher of this node as it was found at one sample."""

    beacon: LauncherBeacon
    alive: bool
    path: Path


@dataclass(frozen=True, slots=True)
class Node:
    """Ranks and launchers of the job on this node at one sample; `unreadable` says what could not be read."""

    ranks: tuple[RankProcess, ...] = ()
    launchers: tuple[LauncherProcess, ...] = ()
    unreadable: tuple[str, ...] = ()


@runtime_checkable
class Collector(Protocol):
    """One source on a node.

    `collect` is called from one thread; it may return nothing ("no data" is no error). It raises
    `CapabilityError` where the source is not to be had, and anything else where it is broken: the runner
    contains and reports both. Collectors but `CORE_COLLECTORS` have a thread each and are called every
    `period_seconds` (an attribute; 5 s without): one that does not come back delays nobody. A collector that
    holds something has `close()`, and one that wants to know what was delivered has
    `acknowledge(path, end_offset)`; both are called from the thread of `collect`.

    The small form is enough, too: a class with `collect_data(self)` and, if it likes, `is_enabled(self)`;
    what it may return says `agent/adapted.py`.
    """

    name: ClassVar[str]

    def collect(self, now: Clock, node: Node) -> Iterable[Item]:
        """Sample once; values that could not be read are left out, never zero."""
        ...


@runtime_checkable
class Rule(Protocol):
    """One judgement; the engine documents what it calls. Pure, so that it replays."""

    name: ClassVar[str]


@runtime_checkable
class Forwarder(Protocol):
    """One destination. The deliverer queues, retries and counts; a forwarder only sends once."""

    name: ClassVar[str]

    def accepts(self, signal: str) -> bool:
        """Whether this destination takes requests of ``metrics``, ``logs`` or ``traces``."""
        ...

    def send(self, signal: str, body: bytes) -> None:
        """Send one serialized OTLP request; raises RetryableDelivery or PermanentDelivery."""
        ...


@runtime_checkable
class Notifier(Protocol):
    """A forwarder that gets each change of an incident once, in order, until it has taken it."""

    name: ClassVar[str]

    def notify(self, notice: Notice) -> None:
        """Deliver one change; raises RetryableDelivery or PermanentDelivery."""
        ...


@runtime_checkable
class Board(Protocol):
    """A forwarder that shows which incidents there are now; what was between two calls it does not see.

    It is called after every change, and again every `repeat_seconds` (an attribute, 0 for never).
    """

    name: ClassVar[str]
    repeat_seconds: float

    def show(self, incidents: Sequence[Mapping[str, Any]], now_ns: int) -> None:
        """Show open incidents and those that ended lately; raises RetryableDelivery or PermanentDelivery."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was found; `target` is None and `error` says why where it could not be loaded."""

    group: str
    name: str
    origin: str  # module, or distribution of the entry point
    target: type[Any] | None
    error: str = ""

    @property
    def summary(self) -> str:
        """First line of the part's documentation."""
        lines = ((self.target.__doc__ if self.target else "") or self.error).strip().splitlines()
        return lines[0] if lines else ""

    def options(self) -> tuple[str, ...]:
        """Names that the part is made with: fields of a dataclass, else parameters of its `__init__`."""
        if self.target is None:
            return ()
        if not is_dataclass(self.target):
            return _parameters(self.target)
        return tuple(item.name for item in fields(self.target) if item.init and not item.name.startswith("_"))

    def settings(self) -> tuple[str, ...]:
        """Those of `options` that the part's configuration section may have."""
        if self.target is None or not is_dataclass(self.target):
            return self.options()
        kinds = {item.name: getattr(item.type, "__name__", str(item.type)) for item in fields(self.target)}
        plain = {name for name, kind in kinds.items() if kind.removesuffix(" | None") in _SETTABLE}
        return tuple(name for name in self.options() if name in plain)


def discover(group: str) -> dict[str, Part]:
    """Built-in parts and those of entry points, by name, in alphabetical order.

    Raises:
        ConfigurationError: where two parts carry one name.
    """
    if group not in GROUPS:
        raise ConfigurationError("plugin group", group, f"one of {', '.join(GROUPS)}")
    found: dict[str, Part] = {}
    for part in (*_built_in(group, f"arobust_otel.{group}"), *_announced(group)):
        other = found.get(part.name)
        if other is not None:
            raise ConfigurationError(
                f"arobust_otel.{group}",
                part.name,
                f"a name that {other.origin} has not taken; {part.origin} announces it, too",
            )
        found[part.name] = part
    return dict(sorted(found.items()))


def build(part: Part, options: Mapping[str, Any] | None = None) -> Any:
    """Make the part with the options of its configuration section.

    Raises:
        ConfigurationError: the part could not be loaded, or an option is not one of its own.
    """
    if part.target is None:
        raise ConfigurationError(f"{part.group}.{part.name}", part.name, f"a part that loads ({part.error})")
    known = part.options()
    for key, value in (options or {}).items():
        if key not in known:
            expected = f"one of {', '.join(known)}" if known else "no option at all"
            raise ConfigurationError(f"{part.group}.{part.name}.{key}", value, expected)
    return part.target(**dict(options or {}))


def close(part: object) -> None:
    """Let a part give back what it holds; parts without `close` hold nothing."""
    end = getattr(part, "close", None)
    if callable(end):
        end()


def _parameters(target: type[Any]) -> tuple[str, ...]:
    """What `__init__` may be called with by name."""
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a class of C without a signature
        return ()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(item.name for item in found if item.kind in named)


def _built_in(group: str, package_name: str) -> list[Part]:
    package, error = guard.attempt(f"discovery of {package_name}", lambda: import_module(package_name))
    if package is None:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package_name
        return [] if missing else [Part(group, group, package_name, None, str(error))]
    parts = (_load(group, f"{package_name}.{info.name}") for info in pkgutil.iter_modules(package.__path__))
    return [part for part in parts if part is not None]


def _load(group: str, module_name: str) -> Part | None:
    """The part in a module, None where the module has no class that carries the module's name."""
    name = module_name.rpartition(".")[2]
    if name.startswith("_"):
        return None
    module, error = guard.attempt(f"discovery of {module_name}", lambda: import_module(module_name))
    if module is None:
        return Part(group, name, module_name, None, f"{type(error).__name__}: {error}")
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module_name and _name_of(value) == name:
            return Part(group, name, module_name, value)
    return None


def _name_of(target: type[Any]) -> str | None:
    name = vars(target).get("name")
    return name if isinstance(name, str) else None


def _announced(group: str) -> list[Part]:
    parts = []
    for point in sorted(entry_points(group=f"arobust_otel.{group}"), key=lambda point: point.name):
        origin = point.dist.name if point.dist is not None else point.value
        target, error = guard.attempt(f"entry point {point.value}", partial(_loaded, point))
        if isinstance(target, type):
            parts.append(Part(group, point.name, origin, target))
        else:
            reason = f"{type(error).__name__}: {error}" if error else f"{point.value} is not a class"
            parts.append(Part(group, point.name, origin, None, reason))
    return parts


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except SystemExit as end:  # a script
        raise ImportError(f"importing it ends the program (exit code {end.code})") from end
