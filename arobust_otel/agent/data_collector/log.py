"""Training logs: what was appended to files since they were last delivered.

Reading, rotation, truncation, unfinished lines and characters are `collectors.logs`'; here is only what a
caller of `collect_data` and `store_data` may rely on: a line is delivered once its report succeeded.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from arobust_otel.agent.data_collector.base import DataCollector
from arobust_otel.agent.handing import Outcome, logger, process_attributes
from arobust_otel.agent.worker_metrics import log_items
from arobust_otel.collectors.logs import LogsCollector, files_of
from arobust_otel.collectors.logtail import Position
from arobust_otel.collectors.logtext import Record
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.model.samples import LogLine
from arobust_otel.plugins import Clock, Node

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None

GIVEN, SENDING, FAILED, DONE = "given", "sending", "failed", "done"
_READ_BYTES = 256 * 1024
_TAIL_BYTES = 256 * 1024


@dataclass(slots=True)
class _Batch:
    """Lines that `collect_data` gave out, and what became of them."""

    lines: list[LogLine]
    state: str = GIVEN
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = "".join(f"{line.body}\n" for line in self.lines)


class LogCollector(DataCollector):
    """New whole lines of one or several log files, in order, each until a report of it succeeded.

    Args:
        log_file_path: a path or pattern, or several; files may appear later, be rotated or cut.
        max_lines: at most so many lines per call; what is more comes with the next one.
    """

    data_type = DiagnosisDataType.TRAINING_LOG

    def __init__(self, log_file_path: Paths = None, max_lines: int = 1000) -> None:
        self.max_lines = max(1, int(max_lines))
        self._lock = threading.RLock()
        self._batch: _Batch | None = None
        self._read: deque[LogLine] = deque()
        self._paths = _paths(log_file_path)
        self._logs = self._open()

    @property
    def log_file_path(self) -> str | None:
        """The first of the paths or patterns; None without any."""
        return self._paths[0] if self._paths else None

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths and patterns that are followed."""
        return self._paths

    def set_log_file(self, log_file_path: Paths) -> None:
        """Follow other files from now on; what was read of the old ones and not delivered comes first."""
        with self._lock:
            self._paths = _paths(log_file_path)
            self._logs.close()
            self._logs = self._open()

    def is_enabled(self) -> bool:
        """Whether one of the files exists."""
        return any(os.path.exists(name) for path in self._paths for name in files_of(path))

    @property
    def has_more(self) -> bool:
        """Whether another `collect_data` would give something at once."""
        with self._lock:
            return bool(self._read) and (self._batch is None or self._batch.state == DONE)

    def collect_data(self) -> str:
        """Lines that were appended since the last call, with their line ends, at most `max_lines`.

        A batch whose report failed is given once more; while one is on its way there is nothing new.
        """
        with self._lock:
            if self._batch is not None and self._batch.state == SENDING:
                return ""
            if self._batch is not None and self._batch.state == FAILED:
                self._batch.state = GIVEN
                return self._batch.text
            self._settle()
            self._fill()
            count = min(self.max_lines, len(self._read))
            if not count:
                return ""
            self._batch = _Batch([self._read.popleft() for _ in range(count)])
            return self._batch.text

    def store_data(self, data: object) -> None:
        """Report a text; where it is what `collect_data` gave, it counts as delivered once that succeeded."""
        if self._refuses(data, str) or not data:
            return
        text = str(data)
        with self._lock:
            batch = self._batch if self._batch is not None and self._batch.text == text else None
            if batch is not None:
                batch.state = SENDING
        items = None if batch is None else _items(batch.lines)
        metric = self._metric(DiagnosisDataType.TRAINING_LOG, text, items)
        self._hand(metric, Outcome(*self._ends(batch)) if batch is not None else None)

    def follow_from(self, positions: Mapping[str, Position]) -> None:
        """Go on with files where another process stopped; before the first `collect_data`."""
        with self._lock:
            for path, position in positions.items():
                self._logs.follow(path, position)

    def positions(self) -> dict[str, Position]:
        """What was delivered of each file."""
        with self._lock:
            self._settle()
            return self._logs.positions()

    def forget(self) -> None:
        """Let go of the files and of what was read of them: another process delivers them now."""
        with self._lock:
            self._logs.close()
            self._read.clear()
            self._batch = None
            self._logs = self._open()

    def begin_anew(self) -> None:
        """In a forked child: locks, threads and what is on its way are the parent's."""
        self._lock = threading.RLock()
        self.forget()

    @property
    def is_sending(self) -> bool:
        """Whether a batch is on its way, and nobody knows yet whether it arrives."""
        with self._lock:
            return self._batch is not None and self._batch.state == SENDING

    def _open(self) -> LogsCollector:
        logs = LogsCollector(files=self._paths, bytes_per_sample=_READ_BYTES, joins_tracebacks=False)
        weakref.finalize(self, logs.close)
        return logs

    def _fill(self) -> None:
        """Read on where too little is at hand."""
        now = Clock(time.time_ns(), time.monotonic_ns())
        if len(self._read) < self.max_lines:
            self._read.extend(line for line in self._logs.collect(now, Node()) if isinstance(line, LogLine))

    def _settle(self) -> None:
        """A batch that was delivered, or that nobody wants to store, is behind us."""
        if self._batch is None or self._batch.state in (SENDING, FAILED):
            return
        for line in self._batch.lines:
            self._logs.acknowledge(line.path, line.end_offset)
        self._batch = None

    def _ends(self, batch: _Batch) -> tuple[_End, _End]:
        return _End(self, batch, DONE), _End(self, batch, FAILED)


@dataclass(frozen=True, slots=True)
class _End:
    """Notes how the report of a batch ended; called from the client's thread."""

    collector: LogCollector
    batch: _Batch
    state: str

    def __call__(self) -> None:
        self.batch.state = self.state
        if self.state == FAILED:
            logger.debug("%d log lines were not taken and are kept", len(self.batch.lines))


def _items(lines: Sequence[LogLine]) -> list[LogLine]:
    """One record per line or traceback, with file and offset."""
    own, now_ns = process_attributes(), time.time_ns()
    found = []
    for path, part in groupby(lines, key=lambda line: line.path):
        records = (Record(line.body, line.end_offset) for line in part)
        found += log_items(records, path, now_ns, own)
    return found


def _paths(given: Paths) -> tuple[str, ...]:
    if given is None or given == "":
        return ()
    several = [given] if isinstance(given, (str, os.PathLike)) else given
    return tuple(os.path.abspath(os.fspath(path)) for path in several)


def tail_of(path: str) -> str:
    """The end of a log, unfinished last line included; an empty text where it cannot be read."""
    if not path:
        return ""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
