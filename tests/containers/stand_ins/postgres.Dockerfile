# Stands in for the registry's postgres, where none can be reached: Debian's, started as that one is.
ARG BASE
FROM ${BASE}
RUN groupadd --gid 70 postgres && useradd --uid 70 --gid 70 postgres \
    && apt-get update && apt-get install --yes --no-install-recommends postgresql \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
    && rm -rf /var/lib/postgresql/* /var/lib/apt/lists/* \
    && install --directory --owner=70 --group=70 --mode=700 /var/lib/postgresql/data \
    && install --directory --owner=70 --group=70 --mode=3777 /var/run/postgresql
COPY postgres-entrypoint /
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["/postgres-entrypoint"]
