# Overread in a container. docs/operations.md says how to run it; `docker build .` gives the CPU image.
#
# BASE         any Debian-like image with python3 ≥ 3.11 and its venv module; both stages use it.
# TORCH        cpu: PyTorch's CPU wheels (image about 1.5 GB), from the index that uv knows for them. The lock's hashes are
#              those of PyPI's wheels, so for torch and torchvision alone the CPU image pins the version, not the hash.
#              cuda: what requirements.lock names, every hash checked (about 6 GB; on Linux PyPI's torch is the CUDA build).
# INDEX_URL    a package index to use instead of the default one; empty: the default.
# TORCH_INDEX_URL  an index that has the CPU wheels, where PyTorch's own cannot be reached; empty: PyTorch's own.
# UV_COMPILE_BYTECODE  0 builds sooner and starts slower: the root file system is read-only to the server.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH=cpu
ARG INDEX_URL=
ARG TORCH_INDEX_URL=
ARG UV_VERSION=0.13.9
ARG UV_COMPILE_BYTECODE=1
# Bytecode is checked neither by time nor by hash: the layers are the same whenever they are built, and never written to.
ENV UV_SYSTEM_CERTS=1 \
    UV_LINK_MODE=copy \
    PYC_INVALIDATION_MODE=unchecked-hash \
    VIRTUAL_ENV=/opt/overread
RUN python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check ${INDEX_URL:+--index-url "$INDEX_URL"} "uv==${UV_VERSION}" \
 && python3 -m venv --without-pip "$VIRTUAL_ENV"
WORKDIR /src
COPY pyproject.toml requirements.lock deploy/install-dependencies ./
RUN --mount=type=cache,target=/root/.cache/uv \
    PATH="/opt/uv/bin:$PATH" sh install-dependencies
COPY README.md LICENSE ./
COPY static static
COPY templates templates
COPY model model
COPY app app
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv pip install ${INDEX_URL:+--default-index "$INDEX_URL"} --no-deps . \
 && /opt/uv/bin/uv pip check

FROM ${BASE}
LABEL org.opencontainers.image.title="Overread" \
      org.opencontainers.image.description="A second reading of chest-radiograph AI. Research use, not for diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed number, so that volumes keep their owner and a cluster can see that it is not root.
RUN groupadd --gid 10001 overread \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin --no-log-init overread \
 && install -d -o 10001 -g 10001 -m 0750 /data
COPY --from=build /opt/overread /opt/overread
COPY deploy/healthcheck.py deploy/first-user /opt/overread/
ENV PATH=/opt/overread/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OVERREAD_DATA_DIR=/data \
    OVERREAD_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "/opt/overread/healthcheck.py"]
# No shell in between: the process gets SIGTERM itself, finishes what it is reading and ends within 20 seconds.
ENTRYPOINT ["overread"]
CMD ["serve", "--host", "0.0.0.0"]
