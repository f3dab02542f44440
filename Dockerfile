# The controller's image. Whoever builds it names the base, best by digest:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:... .
# Without a registry at hand scripts/image.sh makes the base from Debian's packages (docs/install.md).
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# Behind a mirror: its address, and the certificate of its authority as the secret pip-cert. Both end with this stage.
ARG PIP_INDEX_URL
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src
# The locks come first: a change of our own code does not install the libraries again.
COPY requirements/run.txt requirements/build.txt requirements/
RUN --mount=type=secret,id=pip-cert,target=/run/secrets/pip-cert \
    python -m venv /build \
 && /build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && python -m venv --without-pip /opt/remediator \
 && /build/bin/pip --python /opt/remediator/bin/python install --no-compile --require-hashes --only-binary :all: \
      -r requirements/run.txt
COPY LICENSE README.md pyproject.toml ./
COPY deploy/testbed deploy/testbed
COPY remediator remediator
# Checked by hash, since a layer's times may change and a pod cannot write better ones.
RUN /build/bin/hatchling build --target wheel --directory /dist \
 && /build/bin/pip --python /opt/remediator/bin/python install --no-compile --no-index --no-deps /dist/*.whl \
 && /opt/remediator/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/remediator/lib

# The base without what only builds or installs: nothing in here fetches, compiles or changes its user. /bin/sh and nsenter
# stay for the repair Job, the list of Debian packages for scanners.
FROM ${PYTHON_IMAGE} AS root
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && rm -rf /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/pydoc* /usr/local/bin/python*-config \
      /usr/local/include /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/idlelib \
      /usr/local/lib/python3*/site-packages/* /usr/lib/python3*/ensurepip /usr/share/python-wheels \
      /usr/share/doc /usr/share/info /usr/share/locale /usr/share/man /usr/share/perl* /usr/lib/*-linux-gnu/perl* \
      /usr/bin/perl* /var/cache/* /var/log/* /var/lib/apt /etc/apt /usr/lib/apt \
 && find /usr/bin /usr/sbin -name 'apt*' -delete && rm -f /usr/bin/dpkg*

FROM scratch
COPY --from=root / /
COPY --from=build /opt/remediator /opt/remediator
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="remediator" \
      org.opencontainers.image.description="Keeps the pools of a GPU cluster full of healthy nodes." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/remediator/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/ \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, not a name: runAsNonRoot can only check a number.
USER 65532:65532
WORKDIR /
EXPOSE 8080/tcp
# No HEALTHCHECK: Kubernetes asks /healthz and /readyz on that port, and other runtimes may do the same.
ENTRYPOINT ["remediator"]
CMD ["run"]
