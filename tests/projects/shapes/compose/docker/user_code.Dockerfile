FROM python:3.12-slim AS base
WORKDIR /app

FROM base AS prod
ARG CHANNEL
COPY src src
ENV PYTHONPATH=/app/src CHANNEL=$CHANNEL
