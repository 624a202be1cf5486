# syntax=docker/dockerfile:1
# Two images of the same service:
#   docker build --target cpu  -t dpdy:cpu  .      API, migrations, and a worker without a GPU
#   docker build --target cuda -t dpdy:cuda .      a worker with one NVIDIA GPU and tiny-cuda-nn

# ---- CPU: install into /opt/dpdy, then copy only that
FROM python:3.12.12-slim-bookworm AS cpu-build
# An index that carries torch's CPU build (pytorch.org names it) makes the image several GB smaller; without it the
# default build is installed, which runs on a CPU, too.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/dpdy
COPY constraints.txt /src/
# torch alone and first: a later resolution must not pull in another build of it
RUN PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" /opt/dpdy/bin/pip install -c /src/constraints.txt torch
COPY pyproject.toml README.md LICENSE dpdy.py /src/
COPY api /src/api
COPY worker /src/worker
COPY dpdy_core /src/dpdy_core
COPY migrations /src/migrations
RUN /opt/dpdy/bin/pip install -c /src/constraints.txt '/src[record3d]' && /opt/dpdy/bin/pip check

FROM python:3.12.12-slim-bookworm AS cpu
RUN useradd --uid 10001 --no-create-home --home-dir /tmp dpdy && install -d -o dpdy -g dpdy /data
COPY --from=cpu-build /opt/dpdy /opt/dpdy
ENV PATH=/opt/dpdy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/data/models XDG_CACHE_HOME=/tmp/cache DPDY_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["uvicorn", "--factory", "api.main:create_app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]

# ---- CUDA: tiny-cuda-nn is in no package index and is built here
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04 AS cuda-build
# compute capabilities to build for: 80 A100, 86 RTX 30, 89 RTX 40 and L4, 90 H100 and H200, 120 RTX 50
ARG TCNN_CUDA_ARCHITECTURES="80;86;89;90"
ARG TCNN_COMMIT=6ee3546bda615f51abe684ce9edefeb414689135
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
# the system's g++ 13 and no newer: an extension built by a newer compiler than torch's crashes in its first exception
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.12 python3.12-dev python3.12-venv g++-13 git ninja-build \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/dpdy
ENV CC=gcc-13 CXX=g++-13 CUDAHOSTCXX=g++-13
COPY constraints.txt /src/
RUN /opt/dpdy/bin/pip install -c /src/constraints.txt torch
WORKDIR /tcnn
RUN git init -q . \
    && git fetch -q --depth 1 https://github.com/NVlabs/tiny-cuda-nn "${TCNN_COMMIT}" \
    && git checkout -q FETCH_HEAD \
    && git submodule update -q --init --recursive --depth 1
# its setup.py imports pkg_resources, which setuptools dropped later
RUN /opt/dpdy/bin/pip install "setuptools<81" wheel \
    && TCNN_CUDA_ARCHITECTURES="${TCNN_CUDA_ARCHITECTURES}" MAX_JOBS=4 \
       /opt/dpdy/bin/pip install --no-build-isolation --no-deps ./bindings/torch
COPY pyproject.toml README.md LICENSE dpdy.py /src/
COPY api /src/api
COPY worker /src/worker
COPY dpdy_core /src/dpdy_core
COPY migrations /src/migrations
RUN /opt/dpdy/bin/pip install -c /src/constraints.txt '/src[record3d]' && /opt/dpdy/bin/pip check

FROM nvidia/cuda:13.0.2-runtime-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.12 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /tmp dpdy \
    && install -d -o dpdy -g dpdy /data
COPY --from=cuda-build /opt/dpdy /opt/dpdy
ENV PATH=/opt/dpdy/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/data/models XDG_CACHE_HOME=/tmp/cache DPDY_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
# a worker listens on nothing: it is alive if its process is, and /readyz of the API says whether it was seen lately
HEALTHCHECK --interval=30s --timeout=20s --start-period=30s --retries=3 CMD ["nvidia-smi", "-L"]
CMD ["dpdy", "worker"]
