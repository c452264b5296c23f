"""The dictionary of signals."""

from __future__ import annotations

import re

from arobust_otel.model.signals import ATTRIBUTE, COUNTER, DICTIONARY, EVENT, GAUGE, SPAN, UPDOWN


def test_every_row_has_a_kind_a_meaning_and_where_it_is_a_metric_a_unit() -> None:
    for signal in DICTIONARY.values():
        assert signal.kind in (ATTRIBUTE, COUNTER, EVENT, GAUGE, SPAN, UPDOWN), signal
        assert signal.meaning, signal
        assert bool(signal.unit) == (signal.kind in (COUNTER, GAUGE, UPDOWN)), signal


def test_names_are_lower_case_with_dots() -> None:
    wrong = [name for name in DICTIONARY if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", name)]
    assert wrong == []


def test_an_incident_id_and_a_process_id_are_attributes_of_events_not_of_metrics() -> None:
    assert "never a metric" in DICTIONARY["arobust.incident.id"].meaning
    assert "one info metric only" in DICTIONARY["process.pid"].meaning
