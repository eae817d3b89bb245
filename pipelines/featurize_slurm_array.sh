#!/bin/bash
# The main job on a Slurm cluster: an array whose elements each do one share, and then the shares of elements that died.
#
#   sbatch pipelines/featurize_slurm_array.sh recordings/ features/ --hidden 64
#
# Elements start whenever there is room and need not see one another. Whatever is cut short, the same command goes on.
# Copy this file and edit the lines that begin with #SBATCH; with several GPUs an element works in a process per GPU.
#SBATCH --job-name=scanrnn
#SBATCH --array=1-16
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
set -eu
# Since Slurm 22.05, srun does not take --cpus-per-task over from the lines above: a task would see one core.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
# Without srun, each element with several tasks would do the share of the first one only; scanrnn refuses that.
exec srun scanrnn featurize "$@" --shard auto --steal
