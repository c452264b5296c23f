"""Fault diagnosis for distributed training, as an OpenTelemetry integration.

Importing this package pulls in nothing: training processes load it.
"""

from __future__ import annotations

__version__ = "0.1.0"
