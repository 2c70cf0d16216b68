#!/bin/sh
# What one accelerator does, as a Markdown table: edits a second, routed against plain forward, 1,000 blocks.
#
#   benchmarks/gpu_check.sh > gpu.md          on a machine with a GPU, within 8 minutes
#   benchmarks/gpu_check.sh --dry-run         small shapes on the CPU, a minute
#
# Models have random weights, made here from their shapes: no hub and no tokenizer is asked.
set -eu
cd "$(dirname "$0")/.."
exec timeout 480 "${PYTHON:-python}" benchmarks/gpu_check.py "$@"
