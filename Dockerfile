# The image of launch/kubernetes: this checkout with its environment, in which horovodrun, torchrun and sshd start ranks.
#
#     docker build -t horovod-byz .                            (or make image)
#     docker build -t horovod-byz --build-arg TORCH_INDEX=URL . CPU wheels of torch, a tenth of the size
#     docker build -t horovod-byz:cuda --build-arg DEVICE=cuda --build-arg TORCH_INDEX=URL .
#
# TORCH_INDEX is pip's --index-url for torch, as torch's page of installation gives it for CPU and for each version of CUDA; without it
# torch comes as pip finds it. Rows travel from CPU to CPU, so Horovod needs no CUDA; torch's wheels bring their own, and the host's NVIDIA
# runtime brings the driver. All versions are those of requirements/.

ARG PYTHON=3.11.11

FROM python:${PYTHON}-slim-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ cmake make git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/horovod_byz
ENV PATH=/opt/horovod_byz/.venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
ARG DEVICE=cpu
ARG TORCH_INDEX=
# torch first, as in make setup, so that every later requirement finds it and none brings another.
COPY requirements/ requirements/
RUN python -m venv .venv \
    && python -m pip install -q -U -c requirements/constraints.txt pip setuptools wheel \
    && python -m pip install -q ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r requirements/torch.txt \
    && python -m pip install -q ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --no-deps -r requirements/torchvision.txt \
    && python -m pip install -q -r requirements/build.txt -r requirements/run.txt
RUN case "$DEVICE" in \
    cpu) ;; \
    cuda) python -c "import sys, torch; sys.exit(torch.version.cuda is None and 'DEVICE=cuda, but torch came without CUDA: give TORCH_INDEX=URL of its CUDA wheels')" ;; \
    *) echo "DEVICE=$DEVICE: there are cpu and cuda" >&2; exit 2 ;; \
    esac
COPY tools/ tools/
RUN HOROVOD_BYZ_CACHE=/tmp/cache python tools/build_horovod.py && rm -rf /tmp/cache
COPY . .
# Kernels for every instruction set are in one library, so the image runs on other processors than the builder's.
RUN python -m pip install -q --no-build-isolation --no-deps -e . \
    && python tools/install_torchvision_hook.py

FROM python:${PYTHON}-slim-bookworm
# horovodrun starts ranks in other pods by ssh; sshd runs there as the same user, on a port that needs no rights.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 openssh-client openssh-server \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 horovod \
    && mkdir -p /run/sshd /runs \
    && chown horovod /runs \
    && printf '%s\n' 'Host *' '  Port 2222' '  StrictHostKeyChecking no' '  UserKnownHostsFile /dev/null' '  LogLevel ERROR' \
        >/etc/ssh/ssh_config.d/horovod_byz.conf \
    && printf '%s\n' 'Port 2222' 'PidFile /home/horovod/sshd.pid' 'HostKey /home/horovod/.ssh/id_rsa' 'StrictModes no' \
        'PasswordAuthentication no' 'AcceptEnv *' >/home/horovod/.sshd_config
COPY --from=build /opt/horovod_byz /opt/horovod_byz
ENV PATH=/opt/horovod_byz/.venv/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Not root: Open MPI refuses root, and a rank needs no rights.
USER 1000
WORKDIR /opt/horovod_byz
CMD ["horovod-byz", "doctor"]
