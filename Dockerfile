# nlrn on the CPU: small, without root, and without the network once it is built.
#
#     docker build -t nlrn .
#     docker run --rm --network none --user "$(id -u)" -v "$PWD:/data" nlrn nlrn denoise photo.jpg
#     docker run --rm -p 127.0.0.1:8642:8642 -e NLRN_TOKEN=... nlrn
FROM python:3.12-slim AS build
# The compiler is for the kernel, and stays behind.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/nlrn
ENV PATH=/opt/nlrn/bin:$PATH
WORKDIR /src
COPY constraints.txt .
# PyTorch's builds without CUDA are much smaller.
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[app]'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home nlrn
COPY --from=build /opt/nlrn /opt/nlrn
ENV PATH=/opt/nlrn/bin:$PATH
WORKDIR /data
USER 10001
EXPOSE 8642
CMD ["nlrn", "serve", "--host", "0.0.0.0", "--no-browser"]
