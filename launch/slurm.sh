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
#     salloc -N8 -n64 launch/slurm.sh COMMAND
#
# Without options of its own sbatch asks for 46 nodes with a task each. Where Slurm and Open MPI both offer PMIx (srun --mpi=list,
# ompi_info), srun starts the ranks, and they talk over MPI; elsewhere horovodrun starts them by ssh, over Gloo. Settings are taken
# from the environment:
#
#     PRINT=1  print the command instead of running it; outside Slurm for those 46 nodes
#     START    srun or ssh, where you would rather choose; ssh needs nodes that reach one another without a password
#     NIC      the network interface that joins the nodes, such as ib0; without it Horovod and Open MPI search
#     PREPARE  a command that each node runs first, once, such as the installation of a package
set -euo pipefail

fail() { printf 'launch/slurm.sh: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '/^# Starts/,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

case ${1-} in -h | --help) usage; exit ;; esac
[[ $# -gt 0 ]] || fail "needs a command, such as: sbatch launch/slurm.sh horovod-byz train CONFIG"
print=false
[[ ${PRINT:-0} == 0 ]] || print=true

# Sets `nodes` to the allocation's nodes and `tasks` to the tasks of each.
nodes=() tasks=()
in_a_job() {
    [[ -n ${SLURM_SUBMIT_DIR-} ]] || fail "SLURM_SUBMIT_DIR is not set: start me by sbatch, or in the shell that salloc opens"
    # sbatch runs a copy of this file from another folder.
    cd "$SLURM_SUBMIT_DIR" || fail "cannot enter SLURM_SUBMIT_DIR=$SLURM_SUBMIT_DIR: do all nodes share that folder?"
    [[ -x launch/hosts.sh ]] || fail "no launch/hosts.sh in $SLURM_SUBMIT_DIR: call sbatch in the root of the checkout"
    if command -v scontrol >/dev/null; then
        mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    elif [[ $SLURM_JOB_NODELIST != *[\[\]]* ]]; then
        IFS=, read -ra nodes <<<"$SLURM_JOB_NODELIST"
    else
        fail "scontrol, which reads SLURM_JOB_NODELIST=$SLURM_JOB_NODELIST, is not on PATH: add Slurm's bin folder to it"
    fi
    [[ ${#nodes[@]} -gt 0 ]] || fail "scontrol reads no node in SLURM_JOB_NODELIST=$SLURM_JOB_NODELIST"
    count_tasks
}

# Slurm writes the tasks of each node, in order, as 2(x3),1 for three nodes with two and a fourth with one.
count_tasks() {
    local parts each=${SLURM_TASKS_PER_NODE:-${SLURM_NTASKS_PER_NODE:-1}(x${#nodes[@]})} part sum=0
    local said="SLURM_TASKS_PER_NODE=${SLURM_TASKS_PER_NODE-} SLURM_NTASKS_PER_NODE=${SLURM_NTASKS_PER_NODE-}"
    IFS=, read -ra parts <<<"$each"
    for part in "${parts[@]}"; do
        [[ $part =~ ^([1-9][0-9]{0,5})(\(x([1-9][0-9]{0,5})\))?$ ]] || fail "cannot read '$part' in $said: expected such as 2(x3),1"
        for ((i = 0; i < ${BASH_REMATCH[3]:-1}; i++)); do
            tasks+=("${BASH_REMATCH[1]}")
            sum=$((sum + BASH_REMATCH[1]))
        done
    done
    [[ ${#tasks[@]} -eq ${#nodes[@]} ]] ||
        fail "$said counts ${#tasks[@]} nodes, but SLURM_JOB_NODELIST=$SLURM_JOB_NODELIST has ${#nodes[@]}"
    [[ ${SLURM_NTASKS:-$sum} == "$sum" ]] ||
        fail "$said makes $sum tasks on ${#nodes[@]} nodes, but SLURM_NTASKS=$SLURM_NTASKS: pass --ntasks-per-node"
}

# As `in_a_job`, for the allocation that the #SBATCH lines ask for.
outside() {
    local each
    count() { sed -n "s/^#SBATCH --$1=//p" "${BASH_SOURCE[0]}"; }
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    each=$(count ntasks-per-node)
    for ((i = 1; i <= $(count nodes); i++)); do nodes+=("node$i") tasks+=("$each"); done
    echo "launch/slurm.sh: not inside a Slurm job: the nodes are those that its #SBATCH lines ask for" >&2
}

if [[ -n ${SLURM_JOB_NODELIST-} ]]; then
    in_a_job
elif $print; then
    outside
else
    fail "not inside a Slurm job (SLURM_JOB_NODELIST is not set): start it by sbatch launch/slurm.sh COMMAND"
fi

# Whether Slurm and Open MPI share PMIx. Open MPI 5 always has it; 4 lists it among its components where it was built with it.
offers_pmix() {
    local slurm mpi
    command -v srun >/dev/null && command -v ompi_info >/dev/null || return 1
    slurm=$(srun --mpi=list 2>&1) || return 1
    mpi=$(ompi_info 2>/dev/null) || return 1
    [[ $slurm =~ (^|[[:space:]])pmix([_[:space:]]|$) ]] || return 1
    [[ $mpi =~ Open\ MPI:\ ([0-9]+) ]] || return 1
    [[ ${BASH_REMATCH[1]} -ge 5 || $mpi =~ MCA\ pmix:\ (ext|pmix) ]]
}

# Runs a command, or prints it.
act() { if $print; then printf '%q ' "$@"; echo; else "$@"; fi; }

environment=$PWD/.venv/bin
[[ ! -d $environment ]] || PATH=$environment:$PATH
if [[ -z ${START-} ]]; then
    START=ssh
    ! offers_pmix || START=srun
    [[ $START == srun ]] || ! $print || echo "launch/slurm.sh: no PMIx that srun and Open MPI share is found here: by ssh" >&2
fi
[[ $START == srun || $START == ssh ]] || fail "START=$START: there are srun and ssh"
[[ -z ${PREPARE-} ]] || act srun "--nodes=${#nodes[@]}" "--ntasks=${#nodes[@]}" --ntasks-per-node=1 bash -c "$PREPARE"

if [[ $START == srun ]]; then
    ranks=$(IFS=+; echo $((${tasks[*]})))
    network=()
    [[ -z ${NIC-} ]] || network=(env "OMPI_MCA_btl_tcp_if_include=$NIC")
    # A rank that fails ends all; the ranks' errors come first, since they name who is late.
    act "${network[@]}" srun --mpi=pmix "--nodes=${#nodes[@]}" "--ntasks=$ranks" --kill-on-bad-exit=1 --wait=60 "$@"
    exit
fi

hostfile=$(mktemp "${TMPDIR:-/tmp}/horovod_byz.XXXXXX")
trap 'rm -f "$hostfile"' EXIT
for i in "${!nodes[@]}"; do echo "${nodes[$i]} slots=${tasks[$i]}"; done >"$hostfile"
options=()
! $print || options+=(--print)
[[ -z ${NIC-} ]] || options+=(--nic "$NIC")
launch/hosts.sh "${options[@]}" "$hostfile" "$@"
