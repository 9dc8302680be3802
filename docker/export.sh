#!/usr/bin/env bash
# Puts in place what the models of a profile load; what is there already is only checked.
set -euo pipefail
cd "$(dirname "$0")"

# As a container's first process bash would hear no signal; and it waits for a command to end.
step=
stop() {
  kill "$step" 2>/dev/null && wait "$step"
  exit 143
}
trap stop TERM INT

run() {
  python3 -m export "$@" &
  step=$!
  wait "$step"
}

case ${TRITON_PROFILE-} in
cpu)
  run demo --out /bundles/demo
  run fastsam-demo --out /bundles/fastsam
  ;;
*)
  # The mask network first: what is wrong with it shows before a download of 58 GB.
  if [[ -n ${FASTSAM_CHECKPOINT-} ]]; then
    run fastsam --checkpoint "$FASTSAM_CHECKPOINT" --out /bundles/fastsam
  elif [[ ! -e /bundles/fastsam/manifest.json ]] ||
    grep -q '"name": "artmancer-demo-masks"' /bundles/fastsam/manifest.json; then
    echo "no FastSAM yet: set FASTSAM_CHECKPOINT to a FastSAM-s.pt or FastSAM-x.pt" >&2
    exit 1
  fi
  run qwen --out /bundles/qwen-image-edit-2509
  # Beside the plan lies the config that it was built for.
  install -D --mode=644 model_repository/fastsam/config.pbtxt /engines/fastsam/config.pbtxt
  run fastsam-plan --bundle /bundles/fastsam --model /engines/fastsam
  ;;
esac
