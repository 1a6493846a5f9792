# syntax=docker/dockerfile:1
# hins-memory with `hins serve` and the rounds that train, on the CPU. docs/how-to/container.md
ARG PYTHON=3.12.11-slim-bookworm

FROM python:${PYTHON} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python -m venv /opt/hins
WORKDIR /src
# The largest layer, which changes least: torch without CUDA, as constraints.txt pins it.
COPY constraints.txt ./
RUN /opt/hins/bin/pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY hins_memory ./hins_memory
COPY adapters ./adapters
RUN /opt/hins/bin/pip install --no-cache-dir -c constraints.txt ".[mem0,onnx,postgres,serve]"

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="hins-memory" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 hins \
 && useradd --system --uid 10001 --gid hins --home-dir /data --no-log-init hins \
 && install --directory --owner=hins --group=hins --mode=0700 /data
COPY --from=build /opt/hins /opt/hins
ENV PATH=/opt/hins/bin:$PATH \
    HINS_HOME=/data \
    HF_HUB_OFFLINE=1 \
    MEM0_DIR=/data/mem0 \
    MEM0_TELEMETRY=False \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8620
# Ready means that the encoder that serves is loaded.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8620/health/ready', timeout=4)"]
ENTRYPOINT ["hins"]
# Other machines reach it, so that it does not start without HINS_API_KEY.
CMD ["serve", "--host", "0.0.0.0", "--log-format", "json"]
