#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command, from a fresh checkout on a machine with a driver and nvcc:
# install, the GPU's tests, NVIDIA's checkers, a whole training, the benchmark. Ends at the first failure.
# Usage: benchmarks/gpu.sh        GSTH_GPU_VENV names an environment to keep, GSTH_PEERS=0 leaves gsplat out.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
venv="${GSTH_GPU_VENV:-build/gpu_venv}"

command -v nvidia-smi >/dev/null || { echo "no NVIDIA driver here" >&2; exit 1; }
nvidia-smi
[[ -x "$venv/bin/python" ]] || python3 -m venv "$venv"
"$venv/bin/pip" install -q -e ".[all,dev]"
if [[ "${GSTH_PEERS:-1}" != 0 ]]; then
    "$venv/bin/pip" install -q -e ".[gpu]" ninja
    # The newest gsplat has the HiGS renderer, and fused-ssim is what others train with; neither is on PyPI in that form.
    "$venv/bin/pip" install -q --no-build-isolation git+https://github.com/nerfstudio-project/gsplat || echo "gsplat of PyPI it is"
    "$venv/bin/pip" install -q --no-build-isolation git+https://github.com/rahul-goel/fused-ssim || echo "no fused-ssim"
fi
"$venv/bin/python" -m gsth doctor
"$venv/bin/python" -m pytest -q -m gpu tests

if command -v compute-sanitizer >/dev/null; then
    tests=(tests/render/test_cuda.py tests/render/test_backends.py -q -m gpu -k "cuda-cuda or test_cuda")
    for tool in memcheck racecheck synccheck; do
        echo "=== compute-sanitizer $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 1 "$venv/bin/python" -m pytest "${tests[@]}"
    done
else
    echo "no compute-sanitizer: it comes with the CUDA toolkit"
fi
"$venv/bin/python" cuda_ext/report.py "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)"
rm -rf build/gpu_demo
time "$venv/bin/python" -m gsth demo --out build/gpu_demo  # trains on the GPU: --device is auto
"$venv/bin/python" benchmarks/raster_gpu.py
