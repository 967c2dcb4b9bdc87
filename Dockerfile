# Melisma and what it needs: docker build --tag melisma . (docs/installation.md tells how to run it)

# Any Debian or Ubuntu with a Python that is supported.
ARG BASE=docker.io/library/debian:trixie-slim
FROM ${BASE}

# On a GPU, Triton compiles a few lines of C against Python's headers. DVC and the records of runs ask git.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates gcc git libc6-dev make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# 0 leaves CUDA's libraries away.
ARG CUDA=1
ENV PATH=/opt/melisma/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /melisma

# A layer that changes with the lock alone.
COPY Makefile pyproject.toml requirements.lock ./
COPY install install
RUN --mount=type=cache,target=/var/cache/uv \
    UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 PIP_NO_CACHE_DIR=1 \
    make dependencies VENV=/opt/melisma CUDA="$CUDA"

COPY --chown=1000 . .
RUN make install VENV=/opt/melisma CUDA="$CUDA"

# Whoever runs it, `docker run --user` included, may write to this home.
ENV HOME=/home/melisma USER=melisma
RUN useradd --non-unique --uid 1000 --home-dir "$HOME" "$USER" \
    && install --directory --mode=1777 "$HOME" \
    && chown "$USER" /melisma
USER 1000
RUN python -m compileall -q pipeline lightning_modules hydra_plugins \
    && HOME=/tmp dvc config --local core.no_scm true
CMD ["dvc", "repro"]
