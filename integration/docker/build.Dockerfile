# The binary for the image beside this file, built on Debian 12, where there is no Rust of one's own (needs BuildKit):
#
#   docker build -f integration/docker/build.Dockerfile --output target/release .
#
# RUST is any image of Debian 12 with Rust 1.95 or later and a C compiler.
ARG RUST=rust:1.95-bookworm
FROM ${RUST} AS build
WORKDIR /pagecast
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
COPY ims-profiles ims-profiles
RUN --mount=type=cache,target=/pagecast/target \
    cargo build --release --locked --bin pagecast && cp target/release/pagecast /pagecast/pagecast

FROM scratch
COPY --from=build /pagecast/pagecast /pagecast
