#!/usr/bin/env bash
# Sets up a worker: the code in ~/.jaxsae/tree and, in its .venv, exactly what
# its lock file names. Running it again with the same code changes nothing.
set -euo pipefail
cd "$HOME/.jaxsae"
exec 9> setup.lock
flock 9

# The system's own upgrades restart services and hold apt's lock, in mid-run.
if command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
  sudo -n systemctl stop unattended-upgrades.service apt-daily.timer \
    apt-daily-upgrade.timer 2> /dev/null ||
    echo "setup: no unattended upgrades to stop"
else
  echo "setup: unattended upgrades stay on, because there is no sudo"
fi

tree="trees/$(sha256sum tree.tar | cut -c 1-12)"
if [ ! -e "$tree" ]; then
  rm -rf "$tree.partial"
  mkdir -p "$tree.partial"
  tar --no-same-owner -xf tree.tar -C "$tree.partial"
  mv "$tree.partial" "$tree"
fi

# One environment for each lock, so that going back to an old one is quick.
lock="$tree/requirements-tpu.txt"
venv="$PWD/venvs/$(sha256sum "$lock" | cut -c 1-12)"
if [ ! -e "$venv/complete" ]; then
  PATH="$HOME/.local/bin:$PATH"
  if ! command -v uv > /dev/null; then
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv==0.13.8
  fi
  rm -rf "$venv"
  uv venv --quiet --python 3.11 "$venv"
  uv pip install --quiet --python "$venv/bin/python" --requirements "$lock"
  touch "$venv/complete"
fi
ln -sfn "$venv" "$tree/.venv"
ln -sfn "$tree" tree
echo "setup: $tree is ready"
