"""Bytes to model and back: parse, validate, limits, OTLP/JSON, incidents; no sockets, no clock."""
