# One image, two commands: `agerank serve` (the default) and `agerank train`.
# The kernel of the native engine is compiled where there is a compiler.
FROM python:3.11 AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY models models
COPY service service
COPY scripts scripts
RUN pip wheel --disable-pip-version-check --no-deps --wheel-dir /wheels .

FROM python:3.11-slim

# EXTRAS=serve alone builds a scorer without torch. PIP_EXTRA_INDEX_URL may name an index with torch for CPUs only.
ARG EXTRAS=serve,train
ARG PIP_EXTRA_INDEX_URL

RUN useradd --system --uid 10001 --no-create-home agerank && install --directory --owner=agerank /var/lib/agerank

WORKDIR /opt/agerank
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --disable-pip-version-check --constraint constraints.txt "$(echo /wheels/*.whl)[${EXTRAS}]" \
    && python -c "from service.scoring.engines import kernel; kernel.library()"

ENV AGERANK_HOST=0.0.0.0 \
    AGERANK_TRAINER_HOST=0.0.0.0 \
    AGERANK_DATA_DIR=/var/lib/agerank \
    AGERANK_LOG_FORMAT=json
# A number: where containers must not run as root, a kubelet does not look names up.
USER 10001
WORKDIR /var/lib/agerank
VOLUME /var/lib/agerank
EXPOSE 8000 8001

# Of the scorer; docker-compose.yml has the trainer's.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as http; http.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]

ENTRYPOINT ["agerank"]
CMD ["serve"]
