# One image for all processes: the command is `clusterer ...`, settings are CLUSTERER_* variables.
FROM docker.io/library/python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

WORKDIR /src
COPY . .
RUN pip install '.[web]' && rm -rf /src/* \
    && useradd --create-home --uid 1000 clusterer \
    && install --directory --owner=clusterer --group=clusterer --mode=1777 /home/clusterer/.local

WORKDIR /home/clusterer
USER clusterer

# BIN listens on the port of the instance's own row in the provisioning table; 5566 by custom.
EXPOSE 5566

# Healthy means that the process makes progress, also while the process waits for Redis.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["clusterer", "ping"]

ENTRYPOINT ["clusterer"]
CMD ["--help"]
