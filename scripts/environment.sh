#!/usr/bin/env bash
# Makes .venv with exactly the locked dependencies and this package in it.
# Does nothing when it is up to date. PYTHON=/path/to/python picks an interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LOCK=requirements.lock STAMP=.venv/locked LOG=.venv/install.log

fail() {
  printf '\n' >&2
  printf '%s\n' "$@" >&2
  exit 1
}

# Prints the first Python that TensorFlow has wheels for.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [[ -n $candidate ]] && "$candidate" -c \
      'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
      2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11, 3.12 or 3.13 is needed, and none was found. On Debian or Ubuntu:" \
    "  apt-get update && apt-get install --yes python3.11 python3.11-venv" \
    "or name one: PYTHON=/path/to/python3.11 bash scripts/test.sh"
}

# What the environment was made from; the folder's path, because an editable
# install points at it.
fingerprint() {
  { pwd && cat "$LOCK" setup.cfg setup.py pyproject.toml; } | sha256sum
}

make_venv() {
  local python version
  python=$(find_python)
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    fail "$python cannot make virtual environments: Debian and Ubuntu package that" \
      "part on its own. Install it, then run this again:" \
      "  apt-get update && apt-get install --yes python$version-venv"
  fi
  "$python" -m venv --clear .venv
}

# Shows how far pip is on one line, where there is a terminal to show it on.
progress() {
  local total line count=0
  total=$(grep --count '^[a-z].*==' "$LOCK")
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$LOG"
    if [[ $line == Collecting* || $line == "Requirement already"* ]]; then
      count=$((count + 1))
      [[ ! -t 1 ]] || printf '\r\033[K  %d/%d %.50s' "$count" "$total" "$line"
    elif [[ $line == Installing* && -t 1 ]]; then
      printf '\r\033[K  unpacking %d packages' "$total"
    fi
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
}

install() {
  echo "Installing the locked dependencies into .venv (some minutes the first time)"
  .venv/bin/python -m pip install --disable-pip-version-check --no-input \
    --require-hashes --use-pep517 --requirement "$LOCK" 2>&1 | progress &&
    .venv/bin/python -m pip install --disable-pip-version-check --no-input \
      --no-deps --no-build-isolation --editable . 2>&1 | progress
}

[[ -f $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] && exit 0
.venv/bin/python -c '' 2>/dev/null || make_venv
rm -f "$STAMP"
: >"$LOG"
if ! install; then
  tail --lines=25 "$LOG" >&2
  fail "The dependencies could not be installed; all of pip's words are in $LOG." \
    "It is safe to run this again."
fi
fingerprint >"$STAMP"
