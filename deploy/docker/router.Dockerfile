# The router: `make images`. Give bases by digest (PYTHON_IMAGE=python@sha256:...), so that a build can be repeated.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY constraints.txt ./
COPY packages/protocol packages/protocol
COPY packages/router packages/router
RUN python3 -m venv /opt/sie \
 && /opt/sie/bin/pip install --no-cache-dir -c constraints.txt ./packages/protocol ./packages/router \
 && /opt/sie/bin/pip uninstall -y pip setuptools
COPY packages/server/src/sie_server/catalog /opt/sie/catalog

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.10
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sie-router" \
      org.opencontainers.image.description="Finds a worker for each request, or asks for one" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/sie/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SIE_MODELS_DIR=/opt/sie/catalog/models \
    SIE_BUNDLES_DIR=/opt/sie/catalog/bundles
COPY --from=build /opt/sie /opt/sie
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["sie-router"]
CMD ["serve"]
