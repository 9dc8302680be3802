# Triton with what the models import, and what builds their bundles and plans.
#   serving: tritonserver, the model repository, no build tools (the default target)
#   export:  the same and `python -m export`, so that a TensorRT plan is built by the TensorRT
#            that runs it
#
# 26.07 is Triton 2.71. Cancelling streams was unsafe in earlier ones; fixed by server PRs 7840
# (in 25.01 and later), 8078 (25.05) and 8708 (26.04).
# Another base image must be laid out as NVIDIA's. One without TensorRT serves on CPUs alone.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.07-py3

# In its own layer, so that a change of another line of pyproject.toml installs no gigabytes again.
FROM ${TRITON_IMAGE} AS requirements
WORKDIR /build
COPY docker/requirements_of.py pyproject.toml ./
RUN python3 requirements_of.py models > models.txt \
 && python3 requirements_of.py models export > export.txt

FROM ${TRITON_IMAGE} AS packages
WORKDIR /build
# A venv, because Triton's stub takes the first python3 on PATH, and no PYTHONPATH.
RUN python3 -m venv --without-pip /opt/venv
COPY constraints.txt ./
COPY --from=requirements /build/models.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/venv/bin/python install \
      --constraint constraints.txt --requirement models.txt

FROM ${TRITON_IMAGE} AS models
LABEL org.opencontainers.image.title="artmancer-triton" \
      org.opencontainers.image.description="Image editing and smart masks on Triton Inference Server" \
      org.opencontainers.image.licenses="Apache-2.0"
# NVIDIA's user triton-server, 1000, owns what is written.
RUN install --directory --owner=1000 --group=1000 \
      /bundles /engines /run/artmancer /var/cache/artmancer
COPY --from=packages /opt/venv /opt/venv
# What the models share. Its layer is small, so that a change of it moves no gigabytes.
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY model_kit model_kit
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/venv/bin/python install --no-deps . \
    # The command line is the frontend's.
 && rm /opt/venv/bin/artmancer

# Installs into the same venv, so that both images have its gigabytes as one layer.
FROM models AS export
COPY docker/tensorrt_requirement.py docker/gpu_check.py constraints.txt ./
COPY --from=requirements /build/export.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/venv/bin/python install \
      --constraint constraints.txt --requirement export.txt \
    # AGPL-3.0, for export alone. Its own dependencies bring opencv-python, which needs libGL.
 && grep ^ultralytics== constraints.txt > ultralytics.txt \
 && python3 -m pip --python /opt/venv/bin/python install --no-deps --requirement ultralytics.txt
# The bindings' wheel leaves the name `tensorrt` to one that brings the libraries.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 tensorrt_requirement.py > tensorrt.txt \
 && if [ -s tensorrt.txt ]; then \
      python3 -m pip --python /opt/venv/bin/python install --no-deps --requirement tensorrt.txt \
   && echo 'from tensorrt_bindings import *; from tensorrt_bindings import __version__' \
        > "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tensorrt.py" \
   && /opt/venv/bin/python gpu_check.py; \
    else \
      echo 'No TensorRT in the base image: this image builds bundles, but no plan for a GPU'; \
    fi
WORKDIR /opt/artmancer
COPY docker/export.sh ./
COPY model_repository model_repository
COPY export export
USER 1000
# The hub's cache is in the bundles' volume, so that a bundle's files are links to it and 58 GB
# are stored once.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HF_HOME=/bundles/.huggingface
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "/opt/artmancer/export.sh"]

FROM models AS serving
COPY model_repository /models
# Built where the GPU is, after the image.
RUN ln -s /engines/fastsam/1/model.plan /models/fastsam/1/model.plan
COPY docker/triton_entrypoint.py docker/triton_health.py /opt/artmancer/
USER 1000
# Serving never downloads. Compiled kernels outlive the container, in the volume of HOME.
# Segments that grow, because edits of many sizes would leave a fixed memory full of holes.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    PYTORCH_ALLOC_CONF=expandable_segments:True \
    HOME=/var/cache/artmancer \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/artmancer/torchinductor \
    ARTMANCER_LOADING_FILE=/run/artmancer/loading
# gRPC and metrics; HTTP is the health check's, on the loopback interface.
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=15s --start-period=30m --start-interval=5s --retries=3 \
  CMD ["python3", "/opt/artmancer/triton_health.py"]
# Not NVIDIA's script first, which the entry point runs: the kernel keeps a signal from a first process
# without a handler for it.
ENTRYPOINT ["python3", "/opt/artmancer/triton_entrypoint.py"]
