# What deploy/verify.sh uses where no registry of images can be reached: Debian's packages and given binaries, in the place of the images that docker-compose.yml
# names. Each stage is an image of its own; the classic builder makes all above the one that is asked for, so those that need no file come first.
ARG BASE_IMAGE=ensemble-base:bookworm

FROM ${BASE_IMAGE} AS redis
RUN apt-get update --quiet --quiet \
    && apt-get install --yes --quiet --quiet --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=999 --group=999 /data

FROM ${BASE_IMAGE} AS prometheus
RUN apt-get update --quiet --quiet \
    && apt-get install --yes --quiet --quiet --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=65534 --group=65534 /prometheus
ENTRYPOINT ["prometheus"]

FROM ${BASE_IMAGE} AS probe
COPY grpc-health-probe /go/bin/grpc-health-probe

# On the one above Prometheus for its wget alone.
FROM prometheus AS jaeger
COPY jaeger /usr/local/bin/jaeger
ENTRYPOINT ["jaeger"]
