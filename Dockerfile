# syntax=docker/dockerfile:1

FROM python:3.12-slim AS packages
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home webhooks
LABEL org.opencontainers.image.title="kafka-webhooks" org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /app
COPY LICENSE .
COPY --from=packages /venv /venv
COPY alembic alembic
COPY models models
COPY consumer consumer
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN python -m compileall -q consumer models
USER 10001
# 9464: metrics and probes of a worker; 8080: the admin API
EXPOSE 9464 8080
# Exec form: SIGTERM reaches Python, which stops in order
ENTRYPOINT ["python", "-m", "consumer"]
CMD ["run"]
