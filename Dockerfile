# Images: `--target predictor`, `--target transformer`, `--target batch` for `tabserve score`, `log` and `monitor`, and `--target
# stream` for `tabserve stream`. No compiler, no package cache, user 65532.
ARG BASE_IMAGE=python:3.13-slim-bookworm
# One more extra in the images of both services, such as `tracing`.
ARG MORE_EXTRAS=

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY requirements.lock pyproject.toml ./
RUN python3 -m venv /opt/uv \
 && sed -n '/^uv==/,/[0-9a-f]$/p' requirements.lock > uv.txt \
 && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r uv.txt \
 && python3 -m venv --without-pip /opt/tabserve
COPY tabserve /opt/app/tabserve
RUN python3 -m compileall -q /opt/app

FROM build AS predictor-build
ARG MORE_EXTRAS
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/tabserve/bin/python --require-hashes \
    --constraint requirements.lock --requirement pyproject.toml --extra predictor ${MORE_EXTRAS:+--extra ${MORE_EXTRAS}}
COPY predictor/tabserve_predictor /opt/app/tabserve_predictor
RUN python3 -m compileall -q /opt/app/tabserve_predictor

FROM build AS transformer-build
# Instead `predictor` for bundles whose preprocessor runs on scikit-learn, `transformer-log` for a log of decisions,
# `transformer-log-kafka` for one in Kafka, `batch` for the first two, and `stream` for all.
ARG TRANSFORMER_EXTRA=transformer
ARG MORE_EXTRAS
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/tabserve/bin/python --require-hashes \
    --constraint requirements.lock --requirement pyproject.toml --extra ${TRANSFORMER_EXTRA} ${MORE_EXTRAS:+--extra ${MORE_EXTRAS}}
COPY transformer/tabserve_transformer /opt/app/tabserve_transformer
RUN python3 -m compileall -q /opt/app/tabserve_transformer

FROM build AS batch-build
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/tabserve/bin/python --require-hashes \
    --constraint requirements.lock --requirement pyproject.toml --extra batch --extra report

FROM build AS stream-build
RUN /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/tabserve/bin/python --require-hashes \
    --constraint requirements.lock --requirement pyproject.toml --extra stream

FROM ${BASE_IMAGE} AS service
ENV PATH=/opt/tabserve/bin:$PATH PYTHONPATH=/opt/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080 8081 8082

FROM service AS predictor
COPY --from=predictor-build /opt/tabserve /opt/tabserve
COPY --from=predictor-build /opt/app /opt/app
ENTRYPOINT ["python", "-P", "-m", "tabserve_predictor"]

FROM service AS transformer
COPY --from=transformer-build /opt/tabserve /opt/tabserve
COPY --from=transformer-build /opt/app /opt/app
ENTRYPOINT ["python", "-P", "-m", "tabserve_transformer"]

FROM service AS batch
COPY --from=batch-build /opt/tabserve /opt/tabserve
COPY --from=batch-build /opt/app /opt/app
ENTRYPOINT ["python", "-P", "-m", "tabserve.cli"]

FROM service AS stream
COPY --from=stream-build /opt/tabserve /opt/tabserve
COPY --from=stream-build /opt/app /opt/app
ENTRYPOINT ["python", "-P", "-m", "tabserve.cli"]
