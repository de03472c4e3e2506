# ssvid in an image: `docker build -t ssvid .`, then
#   docker run --rm ssvid doctor
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" --user "$(id -u):$(id -g)" ssvid pretrain RECIPE data.root=/data/videos
# The wheels of torch bring CUDA, so that the default base serves GPUs too; the host needs the driver and its container toolkit.
# Another base with Python 3.11 to 3.14 and apt: --build-arg BASE=...
ARG BASE=python:3.12-slim
FROM ${BASE}

# torchcodec, the fastest decoder, loads the FFmpeg libraries of the system.
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ssvid ssvid
COPY pretext_tasks pretext_tasks
COPY recipes recipes
RUN python3 -m pip install --no-cache-dir -c constraints.txt '.[torchcodec]' && rm -rf /src/*

# A home that any user id can write to: runs, caches of torch and of ssvid.
RUN useradd --create-home ssvid && mkdir -p /data && chmod 1777 /data
ENV HOME=/data SSVID_CACHE=/data/.cache/ssvid
USER ssvid
WORKDIR /data
ENTRYPOINT ["ssvid"]
CMD ["--help"]
