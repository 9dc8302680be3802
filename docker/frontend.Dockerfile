# The frontend: REST, SSE and the command line. No torch, no models.
#
# Another base image must have what this one has: `python`, pip and Debian's packages.
ARG PYTHON_IMAGE=python:3.12-slim-trixie

# In its own layer, so that a change of another line of pyproject.toml installs nothing again.
FROM ${PYTHON_IMAGE} AS requirements
WORKDIR /build
COPY docker/requirements_of.py pyproject.toml ./
RUN python requirements_of.py frontend postgres > frontend.txt

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv --without-pip /opt/venv
COPY constraints.txt ./
COPY --from=requirements /build/frontend.txt ./
# Debug symbols and the packages' own tests are a quarter of what pip installs.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install \
      --constraint constraints.txt --requirement frontend.txt \
 && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
 && find /opt/venv -name '*.cpython-*.so' -exec strip --strip-unneeded {} +
COPY pyproject.toml README.md LICENSE ./
COPY model_kit model_kit
COPY frontend frontend
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-deps .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="artmancer-frontend" \
      org.opencontainers.image.description="REST and SSE frontend of ArtMancer on Triton" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin artmancer \
 && install --directory --owner 10001 --mode 700 /var/lib/artmancer
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    ARTMANCER_HOST=0.0.0.0 \
    ARTMANCER_LOADING_FILE=/run/artmancer \
    ARTMANCER_STATE_FOLDER=/var/lib/artmancer
USER 10001
EXPOSE 8080
# readyz asks the models themselves, which may load as long as Triton's container allows. A proxy
# of the environment would take 127.0.0.1 for itself.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30m --retries=3 \
  CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["artmancer"]
CMD ["serve"]
