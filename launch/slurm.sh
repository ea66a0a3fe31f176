#!/usr/bin/env bash
#SBATCH --job-name=horovod_byz
#SBATCH --nodes=46
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --output=slurm-%j.log
# Starts a command on every task of a Slurm allocation. From the root of the checkout, on a file system that all nodes share:
#
#     sbatch launch/slurm.sh horovod-byz train launch/experiments/detox-p45.toml --collect root:dedicated=true
#     sbatch --nodes=4 --gres=gpu:4 --ntasks-per-node=4 launch/slurm.sh horovod-byz train CONFIG --device cuda
#
# Options of sbatch replace those above. PRINT=1 prints the command instead of running it; NIC names the network
# interface. Also within salloc: launch/slurm.sh COMMAND. The nodes must reach one another by ssh.
set -euo pipefail

if [[ -z ${SLURM_JOB_NODELIST-} ]]; then
    echo "launch/slurm.sh: not inside a Slurm job: start it by sbatch launch/slurm.sh COMMAND" >&2
    exit 2
fi
cd "$SLURM_SUBMIT_DIR" # sbatch runs a copy of this file from another folder

hostfile=$(mktemp "${TMPDIR:-/tmp}/horovod_byz.XXXXXX")
trap 'rm -f "$hostfile"' EXIT
scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/\$/ slots=${SLURM_NTASKS_PER_NODE:-1}/" >"$hostfile"
launch/hosts.sh ${PRINT:+--print} ${NIC:+--nic "$NIC"} "$hostfile" "$@"
