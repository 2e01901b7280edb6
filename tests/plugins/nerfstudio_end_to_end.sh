#!/usr/bin/env bash
# gsth as a method of nerfstudio, from an empty virtual environment to a drawn avatar, on the CPU.
# Usage: tests/plugins/nerfstudio_end_to_end.sh [WORK_FOLDER]   (kept where given; its venv/ is used again)
# Installs about 3.5 GB. Fails where nothing is trained, saved, evaluated, shown or brought back.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
work="${1:-$(mktemp -d)}"
mkdir -p "$work"
work="$(cd "$work" && pwd)"
[[ $# -gt 0 ]] || trap 'rm -rf "$work"' EXIT
cd "$work" # so that Python finds the installed gsth, not the sources
bin="$work/venv/bin"

[[ -x "$bin/python" ]] || python3 -m venv venv
"$bin/pip" install -q "$root[nerfstudio,audio]"
"$bin/pip" install -q --no-deps --force-reinstall "$root" # the sources as they are now, also where the version is the same
"$bin/pip" check

# A torch without CUDA beside PyPI's torchvision, which has it: its operators are not there, nerfstudio needs none of
# them, but importing torchvision fails. Two empty definitions mend that; where both are of one build, nothing happens.
mkdir -p hook
cat >hook/sitecustomize.py <<'PY'
import importlib.util, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch
            if not torch.cuda.is_available():
                self.library = torch.library.Library("torchvision", "DEF")
                self.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                self.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                sys.modules["gsth_hook"] = self
        return None
sys.meta_path.insert(0, Hook())
PY
export PYTHONPATH="$work/hook" MPLBACKEND=Agg

"$bin/pip" install -q pytest
"$bin/python" -m pytest -q -p no:cacheprovider "$root/tests/plugins"

[[ -d tiny.track ]] || "$bin/python" "$root/tests/plugins/make_track.py" tiny.track
rm -rf outputs
"$bin/ns-train" gsth --data tiny.track --output-dir outputs --timestamp run --vis tensorboard \
    --machine.device-type cpu --max-num-iterations 60 --steps-per-save 30 --steps-per-eval-image 30 \
    --pipeline.model.splats 4000
run="outputs/$(ls outputs)/gsth/run"
ls -l "$run/nerfstudio_models"

"$bin/ns-eval" --load-config "$run/config.yml" --output-path eval.json
grep -q '"psnr"' eval.json

"$bin/ns-viewer" --load-config "$run/config.yml" --viewer.websocket-port 7019 >viewer.log 2>&1 &
viewer=$!
shown=no
for _ in $(seq 120); do
    if "$bin/python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:7019', timeout=2)" 2>/dev/null; then
        shown=yes
        break
    fi
    kill -0 "$viewer" 2>/dev/null || break
    sleep 2
done
kill "$viewer" 2>/dev/null || true
[[ "$shown" == yes ]] || { tail -30 viewer.log; echo "ns-viewer showed nothing" >&2; exit 1; }

"$bin/gsth" import "$run"/nerfstudio_models/step-*.ckpt --onto tiny.track --out tiny.avatar
"$bin/python" "$root/tests/plugins/check_avatar.py" tiny.avatar tiny.track drawn.png
echo "nerfstudio: trained, saved, evaluated, shown and brought back"
