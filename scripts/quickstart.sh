#!/usr/bin/env bash
# From raw text to a served language model in one command: trains a small GPT on
# Moby-Dick for about three minutes on two cores, exports it, verifies the export,
# serves it on a free loopback port and asks it to go on with a sentence.
#   --keep_serving    leave the server up, in the foreground
#   --python=PATH     use this Python with its packages; do not make .venv
#   --steps=N         train N steps instead of the config's number
#   --prompt=TEXT     what to ask
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CONFIG=keras_llm/configs/quickstart.py BOOK=testdata/moby_dick.txt
keep_serving=false python= prompt="The whale" train_flags=() server=

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' scripts/quickstart.sh
  exit "$1"
}

for argument in "$@"; do
  case $argument in
    --keep_serving) keep_serving=true ;;
    --python=?*) python=${argument#*=} ;;
    --steps=?*)
      steps=${argument#*=}
      train_flags+=("--train.steps=$steps" "--train.warmup_steps=$((steps / 10))")
      ;;
    --prompt=?*) prompt=${argument#*=} ;;
    -h | --help) usage 0 ;;
    *)
      echo "quickstart.sh: unknown argument $argument" >&2
      usage 2 >&2
      ;;
  esac
done

stage() {
  printf '\n[%s/5] %s\n' "$1" "$2"
}

# Shows a command as one can repeat it, then runs it.
show_and_run() {
  printf '  $ %s' "$python"
  printf ' %q' "$@"
  printf '\n'
  "$python" "$@"
}

stop_server() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  [[ -z $server ]] || wait "$server" 2>/dev/null || true
  server=
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints the body of a request: one row, every decoding parameter an input.
request_body() {
  "$python" - "$1" <<'PYTHON'
import json, sys

row = {"prompt": sys.argv[1], "stop": [""], "max_new_tokens": 80, "seed": 3,
       "temperature": 0.7, "top_k": 0, "top_p": 0.9, "min_p": 0, "repetition_penalty": 1}
print(json.dumps({"signature_name": "generate", "instances": [row]}))
PYTHON
}

# Asks over HTTP, without curl, which a fresh machine may lack: with a body for a
# continuation, which it prints; without one whether the model is available.
request() {
  "$python" - "$@" <<'PYTHON'
import json, sys, urllib.request

url, *body = sys.argv[1:]
data = body[0].encode() if body else None
with urllib.request.urlopen(url, data, timeout=120) as response:
    answer = json.load(response)
if body:
    print(json.loads(body[0])["instances"][0]["prompt"] + answer["predictions"][0]["text"])
elif answer["model_version_status"][0]["state"] != "AVAILABLE":
    sys.exit(1)
PYTHON
}

# Sets `address` once the server says that the model is available.
wait_for_server() {
  local log=$1 tries
  for tries in {1..240}; do
    address=$(grep --only-matching --max-count=1 'http://[0-9.]*:[0-9]*' "$log" || true)
    if [[ -n $address ]] && request "$address/v1/models/whale" 2>/dev/null; then
      return
    fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.25
  done
  echo "The server did not become ready after $tries tries. Its last words:" >&2
  tail --lines=20 "$log" >&2
  exit 1
}

stage 1 "Environment"
if [[ -z $python ]]; then
  bash scripts/environment.sh
  python=.venv/bin/python
fi
echo "  $("$python" --version), $("$python" -c \
  'from importlib.metadata import version as v; print("TensorFlow", v("tensorflow"), "and Keras", v("keras"))')"

run=runs/quickstart-$(date +%Y%m%d-%H%M%S)
stage 2 "Train a small GPT on Moby-Dick (about three minutes on two cores)"
show_and_run scripts/train.py --config="$CONFIG" --train_text="$BOOK" \
  --run_dir="$run" "${train_flags[@]}"

stage 3 "Export: one SavedModel, strings in and strings out, and prove it"
show_and_run scripts/export.py --model="$run/best" --out="$run/served/whale/1"

stage 4 "Serve"
mkdir -p "$run"
log=$run/server.log
echo "  $ $python scripts/serve.py --model_name=whale --model_base_path=$run/served/whale --rest_api_port=0"
"$python" scripts/serve.py --model_name=whale --model_base_path="$run/served/whale" \
  --rest_api_port=0 >"$log" 2>&1 &
server=$!
wait_for_server "$log"
echo "  $address"

stage 5 "Ask for a continuation of \"$prompt\""
body=$(request_body "$prompt")
request "$address/v1/models/whale:predict" "$body"
# In single quotes for the shell: a quote inside ends them, comes escaped, begins anew.
printf "\n  $ curl --data '%s' %s\n" "${body//\'/\'\\\'\'}" \
  "$address/v1/models/whale:predict"

if $keep_serving; then
  printf '\nServing until Ctrl-C.\n'
  wait "$server"
else
  printf '\nThe server has been stopped (--keep_serving leaves it up). To start it again:\n'
  printf '  $ %s scripts/serve.py --model_name=whale --model_base_path=%s --rest_api_port=%s\n' \
    "$python" "$run/served/whale" "${address##*:}"
fi
