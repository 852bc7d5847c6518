# One file, a stage an image: `docker build --target compute|labelling|serving|torchserve .`
# Image names must hold "python": Kubeflow's local runner looks for it.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
LABEL org.opencontainers.image.source="https://github.com/scanloop/scanloop" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 scanloop && useradd --uid 10001 --gid 10001 --create-home scanloop
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
COPY components ./components
COPY pipelines ./pipelines
COPY serving ./serving
COPY monitoring ./monitoring

# Every step of the pipelines. kfp comes without its dependencies: a component's launcher needs the package alone.
# TORCH_INDEX chooses the build of torch: the CPU's by default, https://download.pytorch.org/whl/cu130 for CUDA.
FROM base AS compute
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt '.[compute,labelling,monitoring,features]' && \
    pip install --no-deps -c constraints.txt kfp
USER 10001:10001
HEALTHCHECK --interval=60s --timeout=20s CMD ["scanloop", "version"]
ENTRYPOINT ["scanloop"]
CMD ["--help"]

# The clinicians' page, `docs/labelling.md`: no torch. Its settings are a file, its secrets come from files.
FROM base AS labelling
RUN pip install -c constraints.txt '.[labelling,features]'
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s \
    CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8080), 4).close()"]
ENTRYPOINT ["scanloop", "label", "serve"]
CMD ["--settings", "/etc/scanloop/page.yaml", "--host", "0.0.0.0"]

# The model server: ONNX Runtime, no torch.
FROM base AS serving
RUN pip install -c constraints.txt ".[serving]"
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "serving"]
CMD ["--bundle", "/mnt/models", "--host", "0.0.0.0"]

# TorchServe behind the server's guard, `docs/serving-torchserve.md`: an export below /mnt/models, the token in SCANLOOP_TOKEN.
FROM base AS torchserve
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install --yes --no-install-recommends openjdk-17-jre-headless && \
    rm -rf /var/lib/apt/lists/* && \
    pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt ".[torchserve]"
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "serving.torchserve"]
CMD ["--store", "/mnt/models", "--host", "0.0.0.0"]
