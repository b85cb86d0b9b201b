# lockstep in a container: built in one stage, run in another, by a user without rights.
#   docker build -t lockstep .
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        cmake ninja-build gcc pkg-config libc6-dev libpq-dev libavro-dev libjansson-dev libyaml-dev \
        libssl-dev libcmocka-dev libmariadb-dev librdkafka-dev libcurl4-openssl-dev \
        libmicrohttpd-dev zlib1g-dev libzstd-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
RUN cmake --preset release -B /build && cmake --build /build --target lockstep

FROM debian:bookworm-slim
# libmariadb3 brings the authentication plugins of MySQL, postgresql-client pg_dump and pg_restore.
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates libavro23 libcurl4 libjansson4 libmariadb3 libmicrohttpd12 libpq5 \
        librdkafka1 libssl3 libyaml-0-2 libzstd1 postgresql-client zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 8650 --home-dir /var/lib/lockstep --create-home lockstep
COPY --from=build /build/lockstep /usr/local/bin/lockstep
COPY packaging/healthcheck.sh /usr/local/bin/lockstep-healthcheck
USER lockstep
# The configuration, a journal of files and the schema's dump are looked for here.
WORKDIR /var/lib/lockstep
EXPOSE 8650
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["lockstep-healthcheck"]
ENTRYPOINT ["lockstep"]
CMD ["run"]
