# arobust-otel: `runtime` holds master, agent and commands; `training` adds PyTorch for the example job.
#
#   docker build --target runtime -t arobust-otel .
#
# Any Debian-like base does; one without Python gets its own.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
RUN set -eu; \
    missing=""; \
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing="python3 python3-venv"; \
    command -v openssl >/dev/null || missing="$missing openssl"; \
    if [ -n "$missing" ]; then \
        apt-get update; apt-get install -y --no-install-recommends $missing; rm -rf /var/lib/apt/lists/*; \
    fi
RUN groupadd --gid 10001 arobust && useradd --uid 10001 --gid 10001 --home-dir /var/lib/arobust arobust

FROM base AS build
COPY . /src
RUN python3 -m venv /opt/arobust \
    && /opt/arobust/bin/pip install --no-cache-dir --no-compile /src \
    && /opt/arobust/bin/pip uninstall --yes pip setuptools

FROM base AS runtime
COPY --from=build /opt/arobust /opt/arobust
COPY examples /opt/arobust/examples
RUN install -d -m 0700 -o arobust -g arobust /var/lib/arobust
ENV PATH=/opt/arobust/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/arobust
ENTRYPOINT ["arobust"]

# TORCH is what pip is asked for; empty where torch is mounted.
FROM base AS torch
ARG TORCH="torch==2.15.0 numpy"
RUN install -d /opt/torch \
    && if [ -n "$TORCH" ]; then \
        python3 -m venv /tmp/pip && /tmp/pip/bin/pip install --no-cache-dir --target /opt/torch $TORCH; \
    fi

FROM runtime AS training
COPY --from=torch /opt/torch /opt/torch
ENV PYTHONPATH=/opt/torch
ENTRYPOINT []
