# The worker: `make images`, targets cpu (amd64, arm64) and cuda (amd64). Give bases by digest, as for the router.
# CUDA's libraries come with torch from PyPI, so both targets have the same base; the driver is the node's.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# Where pip finds torch without CUDA, for example --index-url=...; empty: PyPI.
ARG TORCH_CPU_FROM=""
# The last torch on PyPI that has CUDA 12, for drivers from 525 on, and no CUDA for arm64. Later ones want the driver 580.
ARG TORCH_OF_PYPI=2.10.0
ARG TARGET=cpu
COPY constraints.txt ./
RUN python3 -m venv /opt/sie \
 && if [ "${TARGET}" = cpu ] && [ -n "${TORCH_CPU_FROM}" ]; then from="${TORCH_CPU_FROM}"; \
    else from=""; sed -i "s/^torch==.*/torch==${TORCH_OF_PYPI}/" constraints.txt; fi \
 && /opt/sie/bin/pip install --no-cache-dir -c constraints.txt ${from} torch
COPY packages/protocol packages/protocol
COPY packages/server packages/server
RUN /opt/sie/bin/pip install --no-cache-dir -c constraints.txt "./packages/protocol[arrays]" \
      "./packages/server[torch,onnx,transformers]" \
 && /opt/sie/bin/pip uninstall -y pip

FROM ${PYTHON_IMAGE} AS cpu
ARG VERSION=0.1.10
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sie-server" \
      org.opencontainers.image.description="The worker: loads models, batches requests, computes" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/sie/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    SIE_LOCAL_CACHE=/tmp/sie
COPY --from=build /opt/sie /opt/sie
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["sie-server"]
CMD ["serve"]

FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
