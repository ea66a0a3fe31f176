#!/usr/bin/env bash
# The papers' cluster on Amazon EC2: one parameter server and 45 workers on m5.2xlarge.
#
#     launch/ec2.sh [--print] up             start the instances, and wait until they answer
#     launch/ec2.sh [--print] hosts          write the hostfile: one private address per line, the root first
#     launch/ec2.sh [--print] setup          copy this checkout to every instance, and run `make setup` there
#     launch/ec2.sh [--print] run COMMAND    run a command on all of them; it goes on when this terminal closes
#     launch/ec2.sh [--print] fetch          copy runs/, results/ and the log from the root into this folder
#     launch/ec2.sh [--print] down           end the instances
#
# --print, or PRINT=1, shows the commands without running them. The AWS command line (configured), ssh and rsync do the work. Settings
# are taken from the environment; those without a default are needed by `up` or for ssh:
#
#     AMI             machine image with Python 3.11, such as Debian 12 of your region
#     KEY_NAME        name of the EC2 key pair; KEY_FILE is its private key (default ~/.ssh/KEY_NAME.pem)
#     SECURITY_GROUP  must let ssh in from here, and everything between its members
#     SUBNET          default: the zone's
#     REGION, ZONE    default us-west-2 and us-west-2c, where the papers' scripts ran
#     TYPE, COUNT     default m5.2xlarge and 46
#     SPOT_PRICE      most dollars per hour and instance; default: on demand
#     DISK            gigabytes per instance, default 30, on DISK_DEVICE, default /dev/xvda (Ubuntu's is /dev/sda1)
#     CLUSTER         the tag that marks this cluster's instances; default horovod_byz
#     LOGIN           the image's user; default admin (Debian)
#     HOSTFILE        default hosts.CLUSTER
#     DATA            folder of data sets to copy; default: each instance downloads them
#     NIC             the network interface; default ens5 (what m5 instances have)
set -euo pipefail

fail() { printf 'launch/ec2.sh: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

print=false
[[ ${PRINT:-0} == 0 ]] || print=true
if [[ ${1-} == --print ]]; then print=true; shift; fi
verb=${1-}; shift || true
# What follows a command is never ignored: `up --print` would start what it should show.
[[ ${1-} != --print ]] || fail "--print comes first: launch/ec2.sh --print $verb"
[[ $verb == run || $# -eq 0 ]] || fail "$verb takes no arguments, got '$*'"
root_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

: "${REGION:=us-west-2}" "${ZONE:=${REGION}c}" "${TYPE:=m5.2xlarge}" "${COUNT:=46}" "${DISK:=30}"
: "${DISK_DEVICE:=/dev/xvda}" "${CLUSTER:=horovod_byz}" "${LOGIN:=admin}" "${NIC:=ens5}" "${HOSTFILE:=hosts.$CLUSTER}"
[[ $COUNT =~ ^[1-9][0-9]*$ ]] || fail "COUNT=$COUNT is not a number of instances"
[[ $CLUSTER =~ ^[A-Za-z0-9_.-]+$ ]] || fail "CLUSTER=$CLUSTER: use letters, digits, '_', '.' and '-'"
[[ -n ${HOME-} ]] || fail "HOME is not set: the keys of ssh are looked for there"
FOLDER=horovod_byz # in the user's home on every instance

# Runs a command, or prints it.
act() { if $print; then printf '%q ' "$@"; echo; else "$@"; fi; }
needs() { local name; for name; do [[ -n ${!name-} ]] || fail "$verb needs $name: see launch/ec2.sh help"; done; }

aws_ec2() { act aws --region "$REGION" ec2 "$@"; }
ours=("Name=tag:horovod_byz,Values=$CLUSTER" "Name=instance-state-name,Values=pending,running")

key() {
    needs KEY_NAME
    : "${KEY_FILE:=$HOME/.ssh/$KEY_NAME.pem}"
    secure=(ssh -i "$KEY_FILE" -o BatchMode=yes -o StrictHostKeyChecking=accept-new
        -o "UserKnownHostsFile=$HOME/.ssh/known_hosts.$CLUSTER")
}

# One line per instance, by launch index, so that the first is the root whichever attribute is asked for.
describe() {
    aws_ec2 describe-instances --filters "${ours[@]}" --output text \
        --query "sort_by(Reservations[].Instances[], &AmiLaunchIndex)[].[$1]"
}

# Sets `all` to an attribute of every instance; with --print to names for the first and the last.
ask() {
    if $print; then all=("$1-1"); [[ $COUNT -eq 1 ]] || all+=("$1-$COUNT"); return; fi
    local found
    found=$(describe "$1")
    [[ -n $found ]] || fail "no instance of cluster $CLUSTER runs in $REGION: launch/ec2.sh up"
    mapfile -t all <<<"$found"
}

# Runs a function for every address at once; fails if any of them failed, and names those.
everywhere() {
    local address failed=() jobs=()
    for address in "${all[@]}"; do "$1" "$address" & jobs+=($!); done
    for i in "${!jobs[@]}"; do wait "${jobs[$i]}" || failed+=("${all[$i]}"); done
    [[ ${#failed[@]} -eq 0 ]] || fail "$verb failed on ${failed[*]}; it may be called again"
}

install() {
    act "${secure[@]}" "$LOGIN@$1" \
        "sudo apt-get -q update && sudo apt-get -q install -y python3.11 python3.11-venv python3.11-dev gcc g++ cmake make git rsync"
    act rsync -a --delete --exclude .venv --exclude .venv-peers --exclude build --exclude runs --exclude 'hosts.*' --exclude '*.so' \
        -e "${secure[*]}" "$root_folder/" "$LOGIN@$1:$FOLDER/"
    [[ -z ${DATA-} ]] || act rsync -a -e "${secure[*]}" "$DATA/" "$LOGIN@$1:$FOLDER/data/"
    act "${secure[@]}" "$LOGIN@$1" "cd $FOLDER && make setup"
}

# The root starts the ranks by ssh: its own key, made there, is let in everywhere.
introduce() {
    local public=ROOTS-PUBLIC-KEY
    act "${secure[@]}" "$LOGIN@${all[0]}" \
        "test -f .ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; printf 'Host *\n  StrictHostKeyChecking accept-new\n' >.ssh/config"
    $print || public=$("${secure[@]}" "$LOGIN@${all[0]}" cat .ssh/id_ed25519.pub)
    # shellcheck disable=SC2329 # `everywhere` calls it
    admit() { act "${secure[@]}" "$LOGIN@$1" "grep -qxF '$public' .ssh/authorized_keys || echo '$public' >>.ssh/authorized_keys"; }
    everywhere admit
}

up() {
    needs AMI KEY_NAME SECURITY_GROUP
    local market=()
    [[ -z ${SPOT_PRICE-} ]] || market=(--instance-market-options
        "MarketType=spot,SpotOptions={MaxPrice=$SPOT_PRICE,SpotInstanceType=one-time}")
    if ! $print; then
        local there
        there=$(describe InstanceId)
        [[ -z $there ]] || fail "cluster $CLUSTER runs already: launch/ec2.sh down, or set another CLUSTER"
    fi
    aws_ec2 run-instances --image-id "$AMI" --instance-type "$TYPE" --count "$COUNT" --key-name "$KEY_NAME" \
        --security-group-ids "$SECURITY_GROUP" ${SUBNET:+--subnet-id "$SUBNET"} --placement "AvailabilityZone=$ZONE" \
        "${market[@]}" --block-device-mappings "DeviceName=$DISK_DEVICE,Ebs={VolumeSize=$DISK,VolumeType=gp3}" \
        --tag-specifications "ResourceType=instance,Tags=[{Key=Name,Value=$CLUSTER},{Key=horovod_byz,Value=$CLUSTER}]" \
        --query "length(Instances)" --output text
    ask InstanceId
    aws_ec2 wait instance-status-ok --instance-ids "${all[@]}"
}

hosts() {
    if $print; then describe PrivateIpAddress; return; fi
    ask PrivateIpAddress
    printf '%s slots=1\n' "${all[@]}" >"$HOSTFILE.new"
    mv "$HOSTFILE.new" "$HOSTFILE"
    echo "$HOSTFILE: ${#all[@]} hosts"
}

setup() {
    key
    ask PublicIpAddress
    everywhere install
    introduce
}

run() {
    [[ $# -gt 0 ]] || fail "run needs a command, such as: launch/ec2.sh run horovod-byz train CONFIG"
    key
    [[ -r $HOSTFILE ]] || $print || fail "no hostfile $HOSTFILE: launch/ec2.sh hosts"
    ask PublicIpAddress
    act rsync -e "${secure[*]}" "$HOSTFILE" "$LOGIN@${all[0]}:$FOLDER/hosts"
    local command
    command=$(printf '%q ' launch/hosts.sh --nic "$NIC" hosts "$@")
    act "${secure[@]}" "$LOGIN@${all[0]}" \
        "cd $FOLDER && : >run.log && { setsid nohup $command >>run.log 2>&1 </dev/null & tail -f --pid=\$! run.log; wait \$!; }"
}

fetch() {
    key
    ask PublicIpAddress
    local from="$LOGIN@${all[0]}:$FOLDER"
    act rsync -a --ignore-missing-args -e "${secure[*]}" "$from/runs" "$from/results" "$from/run.log" ./
}

down() {
    ask InstanceId
    aws_ec2 terminate-instances --instance-ids "${all[@]}" --query "length(TerminatingInstances)" --output text
    act rm -f "$HOME/.ssh/known_hosts.$CLUSTER" # the addresses will be other machines'
}

case $verb in
    "") fail "needs a command: up, hosts, setup, run, fetch, down, or help" ;;
    up | hosts | setup | run | fetch | down) "$verb" "$@" ;;
    help | --help | -h) usage ;;
    *) fail "unknown command '$verb': there are up, hosts, setup, run, fetch, down and help" ;;
esac
