# The demo's image. What the demo has installed already is copied in, so that nothing is downloaded;
# a Dockerfile for a project of your own installs instead: see Dockerfile.example in the repository.
ARG PYTHON
FROM ${PYTHON}
WORKDIR /app
COPY .venv/lib/python3*/site-packages /app/packages
COPY pyproject.toml /app/
COPY src /app/src
ENV PYTHONPATH=/app/src:/app/packages \
    HOME=/tmp \
    DAGSTER_HOME=/tmp
USER 10001:0
