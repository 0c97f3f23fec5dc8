# syntax=docker/dockerfile:1

# Each build takes the newest patch of this tag. To build the same image again, name the base by its digest, which
# `docker buildx imagetools inspect python:3.13-slim` prints:
# docker build --build-arg PYTHON=python:3.13-slim@sha256:... .
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS tools
RUN apt-get update && apt-get install -y --no-install-recommends binutils gcc libc6-dev
RUN python -m venv /pip && python -m venv --without-pip /venv
ENV PIP="/pip/bin/pip --python /venv/bin/python install --no-cache-dir --no-compile --require-hashes --only-binary :all:"

FROM tools AS packages
# With the extras for HTTP/2, for traces and for a schema registry: nothing of them is imported while they are off.
COPY requirements-image.txt .
RUN $PIP -r requirements-image.txt

# mypyc compiles the modules that each delivery passes (docs/performance.md). It reads the types of the packages.
FROM packages AS wheel
COPY requirements-compile.txt .
RUN $PIP -r requirements-compile.txt
WORKDIR /source
COPY LICENSE .
COPY README.md .
COPY pyproject.toml .
COPY alembic alembic
COPY models models
COPY consumer consumer
RUN HATCH_BUILD_HOOK_ENABLE_MYPYC=true /venv/bin/python -m hatchling build --target wheel --directory /wheel

FROM packages AS program
COPY --from=wheel /wheel /wheel
RUN /pip/bin/pip --python /venv/bin/python install --no-compile --no-deps --no-index /wheel/*.whl
# 26 MB that grpcio-tools needs for the stubs that it can write; the program has it compile types only.
RUN /pip/bin/pip --python /venv/bin/python uninstall --yes grpcio setuptools
COPY deploy/image/slim.py .
RUN /venv/bin/python slim.py

FROM ${PYTHON}
ARG PYTHON
ARG REVISION
LABEL org.opencontainers.image.title="kafka-webhooks"
LABEL org.opencontainers.image.description="Sends events from Kafka as signed webhooks"
LABEL org.opencontainers.image.version="1.0.0"
LABEL org.opencontainers.image.revision="${REVISION}"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.base.name="docker.io/library/${PYTHON}"
# Neither a program that gives rights nor one that installs: whoever runs a command here has what the service has.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} + && rm -rf /usr/bin/apt* /usr/bin/dpkg* /usr/lib/apt
RUN groupadd --system --gid 10001 webhooks && useradd --system --uid 10001 --gid 10001 --no-create-home webhooks
WORKDIR /app
COPY --from=wheel /source/LICENSE .
COPY --from=program /venv /venv
# Nothing is written at run time: the root file system may be read-only.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
# 9464: metrics and probes of a worker; 8080: the admin API
EXPOSE 9464 8080
# Of a worker. For another command, or with OPS_PORT=0, set another one, as docker-compose.yml does, or --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + (os.environ.get('OPS_PORT') or '9464') + '/healthz', timeout=3)"]
# Exec form: SIGTERM reaches Python, which stops in order
ENTRYPOINT ["kafka-webhooks"]
CMD ["run"]
