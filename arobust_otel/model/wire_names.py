"""Names that travel beside a message, in HTTP headers and gRPC metadata: lower case, as gRPC wants them."""

from __future__ import annotations

# 32 hexadecimal digits that name one batch: every try of it carries the same id, so that a receiver that has
# it already can answer with success and keep one copy.
BATCH_ID_HEADER = "arobust-batch-id"
BATCH_ID_CHARS = 32
