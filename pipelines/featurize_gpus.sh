#!/bin/bash
# The main job on all GPUs of this machine, or those of CUDA_VISIBLE_DEVICES: a process for each of them. Without GPUs:
# PROCESSES=4.
#
#   bash pipelines/featurize_gpus.sh recordings/ features/ --hidden 64
#
# One command starts, feeds and replaces the processes; whatever is cut short, the same command goes on.
set -eu
exec scanrnn featurize "$@" ${PROCESSES:+--processes "$PROCESSES"}
