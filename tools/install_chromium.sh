#!/bin/sh
# Installs headless Chromium from the distribution's packages, for the browser tests of the report's page.
# Needs root and Debian's or Ubuntu's apt-get; does nothing where chromium is there already.
set -eu

if command -v chromium >/dev/null 2>&1; then
    exit 0
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core
