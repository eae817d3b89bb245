# docker build -t scanrnn .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" scanrnn featurize /data/recordings /data/features --hidden 64
# With --user, what is written to the mounted folder is yours. Without it, the user of the image (uid 1000) must be its owner.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir "/source[remote]"

FROM python:3.12-slim
COPY --from=build /venv /venv
RUN useradd --create-home scanrnn && mkdir /data && chown scanrnn: /data
USER scanrnn
WORKDIR /data
ENV PATH=/venv/bin:$PATH
ENTRYPOINT ["scanrnn"]
