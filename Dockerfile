# Twinspan's image, for those who build with Docker. `make image` writes the same one without it.
#
#   docker build -t twinspan --build-arg TWINSPAN_REVISION=$(git rev-parse HEAD) \
#     --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) .
#
# dev/image builds the program and lays out the files, so only the last lines are repeated there; a test compares them.
ARG RUST=1.95
FROM rust:${RUST}-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev
# The version of the Makefile.
RUN cargo install --locked --version 0.7.7 cargo-auditable
WORKDIR /build
COPY . .
ARG TWINSPAN_REVISION
ARG SOURCE_DATE_EPOCH
RUN cargo run --locked -p twinspan-image -- root /image

FROM scratch
ARG TWINSPAN_REVISION
COPY --from=build /image/ /
LABEL org.opencontainers.image.title="Twinspan" \
  org.opencontainers.image.description="Keeps Kubernetes Services and an etcd service registry in sync, both ways" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="0.1.0" \
  org.opencontainers.image.revision="${TWINSPAN_REVISION}"
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/twinspan"]
