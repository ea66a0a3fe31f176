#!/usr/bin/env python3
"""Host discovery for Horovod Elastic: a hosts file, less the hosts that a policy excluded.

    horovodrun -np 3 --min-np 2 --host-discovery-script "launch/discover_hosts.py HOSTS EXCLUDED" ...

HOSTS has one `name` or `name:slots` a line, with comments after `#`; it may change while the job runs.
EXCLUDED is the file that `hb.Policy(excluded_hosts=...)` writes; it need not exist. A host is back when its
time is over, or when its entry is deleted. Standard library only, since Horovod runs this every second.
"""

import argparse
import json
import pathlib
import sys
import time


def short(name):
    """The name without its domain; addresses as they are."""
    head = name.partition(".")[0]
    return name if head.isdigit() or ":" in name else head


def excluded(path, now):
    """The short names of the hosts that are out at this time."""
    try:
        hosts = json.loads(path.read_text())["hosts"]
    except FileNotFoundError:
        return set()
    return {
        short(name) for name, entry in hosts.items() if entry.get("until") is None or now < entry["until"]
    }


def available(hosts, excluded_hosts, now):
    """The lines of the hosts file whose host is not excluded."""
    lines = [line.partition("#")[0].strip() for line in hosts.read_text().splitlines()]
    out = excluded(excluded_hosts, now)
    return [line for line in lines if line and short(line.partition(":")[0]) not in out]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hosts", type=pathlib.Path, help="file of hosts, one name:slots a line")
    parser.add_argument("excluded", type=pathlib.Path, help="file of excluded hosts, written by hb.Policy")
    args = parser.parse_args()
    try:
        lines = available(args.hosts, args.excluded, time.time())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Horovod keeps the hosts that it has, and asks again.
        sys.exit(f"discover_hosts: {args.hosts} or {args.excluded} cannot be read ({error!r}): correct it")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
