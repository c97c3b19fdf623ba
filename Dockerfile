# epochd in a container: one static binary and nothing else.
#
#   docker build -t epochd .
#   docker run --read-only -p 50051:50051 -v epochd-data:/data epochd

FROM docker.io/library/rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src

# Dependencies first, over empty sources: this layer is built again only when one of these files changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY engine/Cargo.toml engine/
RUN mkdir -p src benches \
    && benches=$(grep -A1 '^\[\[bench\]\]' Cargo.toml | sed -n 's|^name = "\(.*\)"|benches/\1.rs|p') \
    && for file in build.rs src/main.rs $benches; do echo 'fn main() {}' > "$file"; done \
    && touch src/lib.rs engine/lib.rs \
    && cargo build --locked --profile dist \
    && rm -rf src build.rs target/dist/build/epochd-* target/dist/.fingerprint/epochd-*

COPY build.rs ./
COPY proto proto
COPY engine engine
COPY src src
RUN cargo build --locked --profile dist && mkdir /data

FROM scratch AS final
LABEL org.opencontainers.image.title="epochd" \
      org.opencontainers.image.description="A gRPC service that trains neural networks and serves their predictions" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.documentation="README.md"
COPY --from=build /src/target/dist/epochd /epochd
# Owned by the user that runs, so that a new volume is, too.
COPY --from=build --chown=65532:65532 /data /data
ENV EPOCHD_LISTEN=0.0.0.0:50051 \
    EPOCHD_DATA_DIR=/data
USER 65532:65532
VOLUME ["/data"]
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/epochd", "health"]
ENTRYPOINT ["/epochd"]
CMD ["serve"]
