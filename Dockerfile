# Two images from one file, made of the same Make targets and locks that the tests use:
#   docker build --target serving -t segue-server .
#   docker build --target converter -t segue-converter .
# TensorFlow is in the converter's image only.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV PYTHON=python3 PYTHONDONTWRITEBYTECODE=1
COPY pyproject.toml README.md LICENSE Makefile ./
COPY locks locks
COPY protos protos
COPY server server
COPY converter converter

FROM build AS build-serving
RUN make setup-serve VENV=/opt/segue

FROM build AS build-converter
RUN make setup-convert VENV=/opt/segue

FROM ${PYTHON_IMAGE} AS base
RUN useradd --create-home --uid 10001 segue && mkdir /models && chown segue /models
ENV PATH=/opt/segue/bin:$PATH PYTHONUNBUFFERED=1
USER segue
WORKDIR /home/segue
VOLUME /models

FROM base AS converter
COPY --from=build-converter /opt/segue /opt/segue
ENTRYPOINT ["convert-and-deploy"]

# The default target.
FROM base AS serving
COPY --from=build-serving /opt/segue /opt/segue
EXPOSE 8500 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "server.services.probe"]
ENV SEGUE_REPOSITORY=/models
ENTRYPOINT ["segue-server", "--host", "0.0.0.0"]
