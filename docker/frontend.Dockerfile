# syntax=docker/dockerfile:1
# The frontend: REST, SSE and the command line. No torch, no models.
ARG PYTHON=3.12-slim-trixie

FROM python:${PYTHON} AS packages
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY docker/requirements_of.py pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements_of.py frontend > requirements.txt \
 && python -m pip --python /opt/venv/bin/python install \
      --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY frontend frontend
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-deps .

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="artmancer-frontend" \
      org.opencontainers.image.description="REST and SSE frontend of ArtMancer on Triton" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin artmancer
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    ARTMANCER_HOST=0.0.0.0 \
    ARTMANCER_TRITON_URL=triton:8001 \
    ARTMANCER_LOADING_FILE=/run/artmancer/loading
USER 10001
EXPOSE 8080
# readyz asks the models themselves.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["artmancer"]
CMD ["serve"]
