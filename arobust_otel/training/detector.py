"""Resource detector: says which rank of which job an OpenTelemetry SDK beside us runs in.

Imports nothing of the SDK but its resources: the SDK runs detectors while it is being imported itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource, ResourceDetector

from arobust_otel.guard import attempt
from arobust_otel.model import identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue


def rank_attributes(environ: Mapping[str, str]) -> dict[str, AttributeValue]:
    """Resource attributes that this environment gives; absent where unknown."""
    attributes: dict[str, AttributeValue] = {}
    job_id = identity.resolve_job_id(environ)
    if job_id is not None:
        attributes[identity.JOB_ID] = job_id
    rank = identity.resolve_rank(environ)
    if rank is not None:
        attributes.update(rank.attributes())
        attributes[identity.INCARNATION] = rank.incarnation
        if rank.node_rank is not None:
            attributes[identity.NODE_RANK] = rank.node_rank
    return attributes


class ArobustResourceDetector(ResourceDetector):
    """Opt-in, as every detector: name it in ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS``."""

    def detect(self) -> Resource:
        """Attributes of job and rank, read from the environment; empty where there is no job."""
        attributes, _ = attempt("resource detector", lambda: rank_attributes(os.environ))
        return Resource(attributes or {})

    def is_process_dependent(self) -> bool:
        """A forked child is another process of the same rank: detect again."""
        return True
