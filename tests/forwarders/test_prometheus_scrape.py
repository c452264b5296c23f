"""The page that Prometheus reads, in both forms, parsed by the library's own parsers."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from arobust_otel.forwarders.prometheus_scrape import PrometheusScrape
from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import metric_name
from arobust_otel.model.samples import Point
from tests.master.delivering import an_incident, ended

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
INCIDENT = metric_name(signals.INCIDENT_OPEN)


def page(*incidents: dict[str, Any], accept: str = TEXT, own: tuple[Point, ...] = ()) -> tuple[str, str]:
    forwarder = PrometheusScrape()
    forwarder.show(incidents, 7)
    kind, body = forwarder.page(accept, lambda now_ns: own)
    return kind, body.decode()


def samples(text: str, parse: Any = parse_text) -> list[tuple[str, dict[str, str], float]]:
    return [(sample.name, sample.labels, sample.value) for family in parse(text) for sample in family.samples]


def test_incidents_carry_the_labels_that_a_pushed_one_gets() -> None:
    kind, text = page(an_incident(), ended(cause="deadlock", culprits=[]))
    assert kind.startswith("text/plain")
    labels = {
        "arobust_job_id": "job-1",
        "arobust_rule": "hang",
        "arobust_cause": "hang_user_code",
        "arobust_severity": "critical",
        "arobust_rank": "2",
        "host_name": "gpu-a",
    }
    nobody = {**labels, "arobust_cause": "deadlock", "arobust_rank": "", "host_name": ""}
    assert samples(text) == [(INCIDENT, labels, 1.0), (INCIDENT, nobody, 0.0)]


def test_openmetrics_is_answered_where_it_is_preferred() -> None:
    own = (
        Point(signals.FORWARDER_RETRIES, 3, 7, {signals.FORWARDER: "a"}, 1),
        Point(signals.JOURNAL_SIZE, 9, 7),
    )
    kind, text = page(an_incident(), accept=OPENMETRICS, own=own)
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert (metric_name(signals.FORWARDER_RETRIES), {"arobust_forwarder": "a"}, 3.0) in samples(
        text, parse_openmetrics
    )
    assert (metric_name(signals.JOURNAL_SIZE), {}, 9.0) in samples(text, parse_openmetrics)


def test_a_page_without_incidents_is_a_page() -> None:
    assert samples(page()[1]) == []


def test_label_values_are_escaped() -> None:
    name = 'job "a"\\n\nb'
    assert samples(page(an_incident(job_id=name))[1])[0][1]["arobust_job_id"] == name
