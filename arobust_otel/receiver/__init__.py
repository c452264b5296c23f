"""Sockets to journal: OTLP/HTTP, heartbeats, authentication, group commit. Nothing is judged here."""
