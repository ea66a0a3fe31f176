#!/usr/bin/env bash
# The papers' cluster as an AWS ParallelCluster with Slurm: one parameter server and 45 workers, m5.2xlarge.
#
#     launch/parallelcluster.sh [--print] up             create the cluster, and wait until its head node answers
#     launch/parallelcluster.sh [--print] setup          copy this checkout to the head node's home, which all nodes mount
#     launch/parallelcluster.sh [--print] run COMMAND    queue a command for all nodes with launch/slurm.sh
#     launch/parallelcluster.sh [--print] fetch          copy runs/, results/ and Slurm's logs from there into this folder
#     launch/parallelcluster.sh [--print] down           delete the cluster; nodes, disks and all
#     launch/parallelcluster.sh cost                     what HOURS of all nodes cost, from the prices that you give
#     launch/parallelcluster.sh config                   show the configuration with its values filled in
#
# --print, or PRINT=1, shows the commands without running them. The command `pcluster` (of the Python package aws-parallelcluster 3),
# ssh and rsync do the work. Nodes start when a job is queued, and end 10 minutes after the last. Settings are taken from
# the environment; those without a default are needed by `up`, by ssh or by `cost`:
#
#     KEY_NAME        name of the EC2 key pair; KEY_FILE is its private key (default ~/.ssh/KEY_NAME.pem)
#     SUBNET          subnet of all nodes
#     REGION          default us-west-2, where the papers' scripts ran
#     TYPE, COUNT     default m5.2xlarge and 46
#     HEAD_TYPE       the head node's type; default m5.large
#     CAPACITY        ONDEMAND (default) or SPOT
#     DISK            gigabytes of /home, default 100
#     CLUSTER         name of the cluster; default horovod-byz
#     PREPARE         command that each node runs before its ranks; default installs Python 3.11
#     HOURS           for `cost`: how long all nodes run
#     PRICE           for `cost`: dollars per hour and node; HEAD_PRICE the same for the head node
#     PRICE_DATE      for `cost`: the day on which you looked the prices up, such as 2026-11-26
#     DISK_PRICE      for `cost`: dollars per gigabyte and month of gp3; default 0, which leaves disks out
set -euo pipefail

fail() { printf 'launch/parallelcluster.sh: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

print=false
[[ ${PRINT:-0} == 0 ]] || print=true
if [[ ${1-} == --print ]]; then print=true; shift; fi
verb=${1-}; shift || true
[[ ${1-} != --print ]] || fail "--print comes first: launch/parallelcluster.sh --print $verb"
[[ $verb == run || $# -eq 0 ]] || fail "$verb takes no arguments, got '$*'"
root_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

: "${REGION:=us-west-2}" "${TYPE:=m5.2xlarge}" "${COUNT:=46}" "${HEAD_TYPE:=m5.large}" "${CAPACITY:=ONDEMAND}"
: "${DISK:=100}" "${CLUSTER:=horovod-byz}" "${DISK_PRICE:=0}"
: "${PREPARE=sudo dnf install -y -q python3.11 python3.11-devel gcc gcc-c++ cmake make git}"
[[ $COUNT =~ ^[1-9][0-9]*$ ]] || fail "COUNT=$COUNT is not a number of nodes"
[[ $DISK =~ ^[1-9][0-9]*$ ]] || fail "DISK=$DISK is not a number of gigabytes"
[[ $CAPACITY == ONDEMAND || $CAPACITY == SPOT ]] || fail "CAPACITY=$CAPACITY: there are ONDEMAND and SPOT"
[[ $CLUSTER =~ ^[A-Za-z][A-Za-z0-9-]*$ ]] || fail "CLUSTER=$CLUSTER: use letters, digits and '-', a letter first"
FOLDER=horovod_byz # in the home on the head node

# Runs a command, or prints it.
act() { if $print; then printf '%q ' "$@"; echo; else "$@"; fi; }
needs() { local name; for name; do [[ -n ${!name-} ]] || fail "$verb needs $name: see launch/parallelcluster.sh --help"; done; }
cluster() { act pcluster "$1" --region "$REGION" --cluster-name "$CLUSTER" "${@:2}"; }

config() {
    needs KEY_NAME SUBNET
    local text name
    text=$(<"$root_folder/launch/parallelcluster/cluster.yaml")
    for name in REGION HEAD_TYPE SUBNET KEY_NAME DISK CAPACITY TYPE COUNT CLUSTER; do
        text=${text//"\${$name}"/${!name}}
    done
    printf '%s\n' "$text"
}

up() {
    local file
    file=$(mktemp "${TMPDIR:-/tmp}/horovod_byz.XXXXXX.yaml")
    # shellcheck disable=SC2064 # the name is known now, and gone at the end
    trap "rm -f '$file'" EXIT
    config >"$file"
    cluster create-cluster --cluster-configuration "$file"
    $print || wait_for_it
}

wait_for_it() {
    local status
    while true; do
        status=$(pcluster describe-cluster --region "$REGION" --cluster-name "$CLUSTER" --query clusterStatus)
        case $status in
            *CREATE_COMPLETE*) return ;;
            *IN_PROGRESS*) sleep 30 ;;
            *) fail "the cluster is $status: pcluster describe-cluster --region $REGION --cluster-name $CLUSTER, then launch/parallelcluster.sh down" ;;
        esac
    done
}

# Sets `head` to the head node's login, and `secure` to ssh with its key.
reach() {
    needs KEY_NAME
    [[ -n ${HOME-} ]] || fail "HOME is not set: the keys of ssh are looked for there"
    : "${KEY_FILE:=$HOME/.ssh/$KEY_NAME.pem}"
    secure=(ssh -i "$KEY_FILE" -o BatchMode=yes -o StrictHostKeyChecking=accept-new
        -o "UserKnownHostsFile=$HOME/.ssh/known_hosts.$CLUSTER")
    if $print; then head=ec2-user@HEAD-NODE; return; fi
    local address
    address=$(pcluster describe-cluster --region "$REGION" --cluster-name "$CLUSTER" --query headNode.publicIpAddress | tr -d '"')
    [[ -n $address && $address != null ]] || fail "cluster $CLUSTER has no head node in $REGION: launch/parallelcluster.sh up"
    head=ec2-user@$address
}

setup() {
    reach
    act "${secure[@]}" "$head" "${PREPARE:-true} && sudo dnf install -y -q rsync"
    act rsync -a --delete --exclude .venv --exclude .venv-peers --exclude build --exclude runs --exclude '*.so' \
        -e "${secure[*]}" "$root_folder/" "$head:$FOLDER/"
    act "${secure[@]}" "$head" "cd $FOLDER && make setup"
}

run() {
    [[ $# -gt 0 ]] || fail "run needs a command, such as: launch/parallelcluster.sh run horovod-byz train CONFIG"
    reach
    local command
    command=$(printf '%q ' env "PREPARE=$PREPARE" sbatch "--nodes=$COUNT" launch/slurm.sh "$@")
    act "${secure[@]}" "$head" "cd $FOLDER && $command"
}

fetch() {
    reach
    local from="$head:$FOLDER"
    act rsync -a --ignore-missing-args -e "${secure[*]}" "$from/runs" "$from/results" "$from/slurm-*.log" ./
}

down() {
    cluster delete-cluster
    [[ -z ${HOME-} ]] || act rm -f "$HOME/.ssh/known_hosts.$CLUSTER" # the addresses will be other machines'
}

# Dollars = hours (nodes price + head's price) + disks. A month has 730 hours, as Amazon counts.
cost() {
    needs HOURS PRICE HEAD_PRICE PRICE_DATE
    local name
    for name in HOURS PRICE HEAD_PRICE DISK_PRICE; do
        [[ ${!name} =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "$name=${!name} is not a number, such as 0.384"
    done
    [[ $PRICE_DATE =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || fail "PRICE_DATE=$PRICE_DATE is not a day, such as 2026-11-26"
    awk -v hours="$HOURS" -v count="$COUNT" -v price="$PRICE" -v head="$HEAD_PRICE" -v disk="$DISK" -v gigabyte="$DISK_PRICE" \
        -v type="$TYPE" -v head_type="$HEAD_TYPE" -v date="$PRICE_DATE" 'BEGIN {
            nodes = hours * count * price; scheduler = hours * head
            disks = hours * (disk + count * 40) * gigabyte / 730
            printf "%s h x %d x %s at $%s/h = $%.2f\n", hours, count, type, price, nodes
            printf "%s h x 1 x %s at $%s/h = $%.2f\n", hours, head_type, head, scheduler
            printf "%s h of %d GB + %d x 40 GB at $%s/GB and month = $%.2f\n", hours, disk, count, gigabyte, disks
            printf "together $%.2f at the prices of %s, without traffic; each further hour $%.2f while all nodes run\n",
                nodes + scheduler + disks, date, count * price + head
        }'
    echo "nodes end 10 minutes after their last job; the head node and its disk are paid until: launch/parallelcluster.sh down"
}

case $verb in
    "") fail "needs a command: up, setup, run, fetch, down, cost, config, or help" ;;
    up | setup | run | fetch | down | cost | config) "$verb" "$@" ;;
    help | --help | -h) usage ;;
    *) fail "unknown command '$verb': there are up, setup, run, fetch, down, cost, config and help" ;;
esac
