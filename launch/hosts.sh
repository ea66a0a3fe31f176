#!/usr/bin/env bash
# Starts a command on every slot of a hostfile with horovodrun.
#
#     launch/hosts.sh [--print] [--mpi] [--nic NAME] HOSTFILE COMMAND...
#
#     --print     print the command that would run, and end
#     --mpi       Open MPI instead of Gloo
#     --nic NAME  the network interface that joins the hosts, such as ens5; without it Horovod searches
#
# A line of the hostfile is `name slots=2`, or `name` for one slot; # begins a comment. The first host holds rank 0,
# which with `--collect root:dedicated=true` is the parameter server. Every host needs this checkout at the same path
# (with `make setup` done), and the host that starts must reach the others by ssh without a password.
# The command runs in this folder on every host. With --mpi, .venv/bin must also be on the PATH that ssh gives there.
# In the environment: START_TIMEOUT, the seconds that all ranks together have to start, by default 600; PRINT=1 is --print.
set -euo pipefail

fail() { printf 'launch/hosts.sh: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

print=false backend=gloo nic=
[[ ${PRINT:-0} == 0 ]] || print=true
if [[ ${1-} == -h ]]; then set -- --help; fi
while [[ ${1-} == --* ]]; do
    case $1 in
        --print) print=true ;;
        --mpi) backend=mpi ;;
        --nic) nic=${2-}; [[ -n $nic ]] || fail "--nic needs the name of an interface"; shift ;;
        --help) usage; exit ;;
        *) fail "unknown option $1: there are --print, --mpi, --nic NAME and --help" ;;
    esac
    shift
done
[[ $# -ge 2 ]] || fail "needs a hostfile and a command, such as: launch/hosts.sh hosts horovod-byz train CONFIG"
file=$1; shift
[[ -r $file && ! -d $file ]] || fail "cannot read the hostfile $file: a line is 'name slots=1'; launch/ec2.sh hosts writes one"

hosts=() ranks=0 number=0
while read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'} # of an editor under Windows
    read -r name slots rest <<<"${line%%#*}"
    [[ -n $name ]] || continue
    slots=${slots:-slots=1}
    [[ $slots =~ ^slots=([1-9][0-9]{0,5})$ && -z $rest && $name != *[:,]* ]] || fail "$file, line $number: '$line' is not 'name slots=NUMBER'"
    hosts+=("$name:${BASH_REMATCH[1]}")
    ranks=$((ranks + BASH_REMATCH[1]))
done <"$file"
[[ $ranks -gt 0 ]] || fail "$file names no host"
: "${START_TIMEOUT:=600}"
[[ $START_TIMEOUT =~ ^[1-9][0-9]*$ ]] || fail "START_TIMEOUT=$START_TIMEOUT is not a number of seconds"

# horovodrun hands PATH on, so that .venv is used on every host.
environment=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin
[[ ! -d $environment ]] || PATH=$environment:$PATH
start=(horovodrun "--$backend" -np "$ranks" -H "$(IFS=,; echo "${hosts[*]}")" --start-timeout "$START_TIMEOUT")
[[ -z $nic ]] || start+=(--network-interface "$nic")
# Open MPI 5 does not read the single dashes of the binding options that horovodrun passes by itself.
[[ $backend == gloo ]] || start+=("--binding-args=--bind-to none --map-by slot")

$print && { printf '%q ' "${start[@]}" "$@"; echo; exit; }
command -v horovodrun >/dev/null || fail "horovodrun is not on PATH: run make setup here, or activate an environment with Horovod"
exec "${start[@]}" "$@"
