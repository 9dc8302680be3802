# Stands in for the registry's nginx, where none can be reached: Debian's, with that one's user.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 101 nginx && useradd --uid 101 --gid 101 nginx \
    && apt-get update && apt-get install --yes --no-install-recommends nginx-light \
    && rm -rf /var/lib/apt/lists/*
