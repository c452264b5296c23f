"""Durable ordered log: append, read from an offset, cursors, snapshots, retention (docs/journal.md)."""

from __future__ import annotations

from arobust_otel.journal.appender import Appender
from arobust_otel.journal.cursor import Cursor
from arobust_otel.journal.format import Kind, Record, Source
from arobust_otel.journal.reader import Reader

__all__ = ["Appender", "Cursor", "Kind", "Reader", "Record", "Source"]
