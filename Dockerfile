# One image for every pod of the chart: Ray heads and workers, submitters, tests, the embedded S3 server.
#
#   docker build -t eagleray:0.1.0 .
#   docker build -t eagleray:0.1.0-cu128 --build-arg TORCH=cu128 .
#
# BASE may be any image with Python 3.11, bash and a shell; KubeRay starts Ray by bash.
ARG BASE=python:3.11.13-slim-bookworm

# What the code needs, in the versions of the lock; nothing of it changes when the code does.
FROM ${BASE} AS environment
# PyTorch's build: cpu, or a CUDA version such as cu128; empty takes the one of the index below.
ARG TORCH=cpu
# For builds behind a mirror, or a proxy with a certificate of its own, as uv reads them.
ARG UV_DEFAULT_INDEX UV_FIND_LINKS SSL_CERT_FILE
WORKDIR /build
COPY requirements.lock pyproject.toml ./
RUN python3 -m venv /opt/eagleray /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --constraint requirements.lock uv \
    && /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/eagleray/bin/python \
        ${TORCH:+--torch-backend="${TORCH}"} --constraint requirements.lock \
        --requirements pyproject.toml --extra local --extra mlflow --extra otel setuptools

FROM environment AS code
COPY README.md LICENSE ./
COPY eagleray eagleray
COPY ray_jobs ray_jobs
COPY serving serving
COPY k8s k8s
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/eagleray/bin/python \
        --no-deps --no-build-isolation --target /opt/code .

FROM ${BASE}
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EagleRay" \
      org.opencontainers.image.description="Distributed training and serving on Ray and Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
# The chart runs it as this user, with a read-only root and /tmp and the home from memory or disk.
RUN mkdir -p /home/eagleray \
    && chown 1000:1000 /home/eagleray \
    && echo 'eagleray:x:1000:1000::/home/eagleray:/bin/bash' >> /etc/passwd
ENV HOME=/home/eagleray \
    PATH=/opt/code/bin:/opt/eagleray/bin:$PATH \
    PYTHONPATH=/opt/code \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
COPY --from=environment /opt/eagleray /opt/eagleray
COPY --from=code /opt/code /opt/code
USER 1000:1000
WORKDIR /home/eagleray
EXPOSE 8000 8265
# For `eagleray serve` in a plain container; Kubernetes has probes of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["eagleray", "--help"]
