# The inference image: PyTorch with CUDA, slimmed, the command `serve`, the example's handler.
#
#   byoc build --only inference         (or: docker build -f docker/inference.Dockerfile .)
#
# Any Debian or Ubuntu with Python >= 3.10 will do as the base. Its CUDA libraries are not used,
# PyTorch's wheels bring their own; what NVIDIA's `base` image adds is CUDA forward compatibility.
ARG BASE_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04


# --- tools: what builds, none of it stays --------------------------------------------------------
FROM ${BASE_IMAGE} AS tools
ARG SOURCE_DATE_EPOCH=1735689600
RUN --mount=type=bind,source=docker/apt-install,target=/dev/build/apt-install \
    /dev/build/apt-install ca-certificates gcc libc6-dev python3 python3-dev python3-venv
COPY docker/tools.txt docker/with-index /build/
RUN --mount=type=secret,id=ca,target=/dev/build/ca \
    --mount=type=secret,id=pip_conf,target=/dev/build/pip_conf \
    python3 -m venv /opt/tools \
    && /build/with-index /opt/tools/bin/pip install --quiet --no-cache-dir \
        --disable-pip-version-check --require-hashes -r /build/tools.txt \
    && mkdir /build/etc \
    && touch --date="@$SOURCE_DATE_EPOCH" /build/etc/hosts /build/etc/resolv.conf /build/etc

# The lock file, split into one part a layer.
FROM tools AS packages
ARG CUDA_LANE=cu128
COPY docker/split_lock.py locks/inference-${CUDA_LANE}.txt /build/
RUN python3 /build/split_lock.py /build/inference-${CUDA_LANE}.txt /build/tools.txt \
        /build/requirements

FROM tools AS project
ARG SOURCE_DATE_EPOCH=1735689600
WORKDIR /build/project
COPY pyproject.toml README.md LICENSE ./
COPY byoc byoc
COPY serving serving
COPY training training
RUN /opt/tools/bin/python -m hatchling build --target wheel --directory /build/project-wheel


# --- the image: layers in the order in which they change -----------------------------------------
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH=1735689600
# The engine mounts these two. Where the base has none it makes and removes them around each
# step, and the changed time of /etc would make every layer differ from build to build.
COPY --from=tools /build/etc/ /etc/

# KEEP_TRITON=1 keeps Triton, 0.6 GB, and the C compiler that it needs: for handlers that call
# torch.compile on a GPU. Models compiled ahead of time (.pt2) and eager ones do without.
ARG KEEP_TRITON=0
RUN --mount=type=bind,source=docker/apt-install,target=/dev/build/apt-install \
    : "Debian packages"; if [ "$KEEP_TRITON" = 0 ]; then compiler=; else compiler="gcc libc6-dev python3-dev"; fi; \
    /dev/build/apt-install ca-certificates python3 $compiler

# First on PATH by ENV, not by an entry point: SageMaker's clients replace entry points.
ENV PATH=/opt/venv/bin:${PATH} \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# PyTorch and CUDA, without what serving never loads (the table is in docker/slim.py)
RUN --mount=type=bind,from=packages,source=/opt/tools/bin/uv,target=/dev/build/uv \
    --mount=type=bind,from=packages,source=/build/requirements/torch.txt,target=/dev/build/torch.txt \
    --mount=type=bind,source=docker/with-index,target=/dev/build/with-index \
    --mount=type=bind,source=docker/seal.py,target=/dev/build/seal.py \
    --mount=type=bind,source=docker/slim.py,target=/dev/build/slim.py \
    --mount=type=cache,id=byoc-uv,target=/dev/build/cache,sharing=shared \
    --mount=type=secret,id=ca,target=/dev/build/ca \
    --mount=type=secret,id=pip_conf,target=/dev/build/pip_conf \
    : "PyTorch and CUDA"; export UV_CACHE_DIR=/dev/build/cache UV_LINK_MODE=copy UV_HTTP_TIMEOUT=300 UV_NO_PROGRESS=1 \
    && /dev/build/uv venv --quiet --no-config --python /usr/bin/python3 /opt/venv \
    && /dev/build/with-index /dev/build/uv pip install --no-config --python /opt/venv/bin/python \
        --no-deps --only-binary :all: --require-hashes -r /dev/build/torch.txt \
    && python3 /dev/build/slim.py /opt/venv/lib/python3*/site-packages \
    && python3 /dev/build/seal.py /opt

# All other packages; pip, for a model archive's requirements.txt
RUN --mount=type=bind,from=packages,source=/opt/tools/bin/uv,target=/dev/build/uv \
    --mount=type=bind,from=packages,source=/build/requirements/packages.txt,target=/dev/build/packages.txt \
    --mount=type=bind,source=docker/with-index,target=/dev/build/with-index \
    --mount=type=bind,source=docker/seal.py,target=/dev/build/seal.py \
    --mount=type=cache,id=byoc-uv,target=/dev/build/cache,sharing=shared \
    --mount=type=secret,id=ca,target=/dev/build/ca \
    --mount=type=secret,id=pip_conf,target=/dev/build/pip_conf \
    : "all other packages"; export UV_CACHE_DIR=/dev/build/cache UV_LINK_MODE=copy UV_HTTP_TIMEOUT=300 UV_NO_PROGRESS=1 \
    && /dev/build/with-index /dev/build/uv pip install --no-config --python /opt/venv/bin/python \
        --no-deps --only-binary :all: --require-hashes -r /dev/build/packages.txt \
    && python3 /dev/build/seal.py /opt

# This project
RUN --mount=type=bind,from=packages,source=/opt/tools/bin/uv,target=/dev/build/uv \
    --mount=type=bind,from=project,source=/build/project-wheel,target=/dev/build/wheel \
    --mount=type=bind,source=docker/byoc_cuda_compat.py,target=/dev/build/byoc_cuda_compat.py \
    --mount=type=bind,source=docker/byoc_cuda_compat.pth,target=/dev/build/byoc_cuda_compat.pth \
    --mount=type=bind,source=docker/seal.py,target=/dev/build/seal.py \
    : "sagemaker-byoc"; /dev/build/uv pip install --no-config --python /opt/venv/bin/python \
        --no-deps --no-index --no-cache --link-mode=copy /dev/build/wheel/*.whl \
    && cp /dev/build/byoc_cuda_compat.py /dev/build/byoc_cuda_compat.pth \
        "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find /opt/venv -name uv_cache.json -delete \
    && python3 /dev/build/seal.py /opt

# The example's handler, which serves models that bring none
RUN --mount=type=bind,source=examples/mnist,target=/dev/build/example \
    --mount=type=bind,source=docker/seal.py,target=/dev/build/seal.py \
    : "the example"; mkdir -p /opt/byoc/example \
    && cp /dev/build/example/*.py /opt/byoc/example \
    && python3 /dev/build/seal.py /opt

# NVIDIA's base images refuse to start on a driver older than theirs, without any log; CUDA's
# minor-version compatibility and the compatibility libraries make most of those hosts work.
ENV NVIDIA_REQUIRE_CUDA="" \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    TRITON_CACHE_DIR=/tmp/triton \
    BYOC_HANDLER=/opt/byoc/example/inference.py

WORKDIR /
EXPOSE 8080
CMD ["serve"]

ARG BASE_IMAGE=nvidia/cuda:12.8.1-base-ubuntu24.04
ARG CUDA_LANE=cu128
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=""
ARG TORCH_VERSION=2.10.0
ARG CUDA_VERSION=12.8
ARG MINIMUM_DRIVER=525
LABEL org.opencontainers.image.title="sagemaker-byoc inference" \
      org.opencontainers.image.description="PyTorch inference for Amazon SageMaker: /ping and /invocations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.bidirectional-streaming="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      sagemaker-byoc.contract="2026-11" \
      sagemaker-byoc.cuda.lane="${CUDA_LANE}" \
      sagemaker-byoc.cuda.version="${CUDA_VERSION}" \
      sagemaker-byoc.cuda.minimum-driver="${MINIMUM_DRIVER}" \
      sagemaker-byoc.torch.version="${TORCH_VERSION}"
