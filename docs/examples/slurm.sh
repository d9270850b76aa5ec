#!/usr/bin/env bash
# Two workers of one run, one on each node; /runs is a folder that both see.
# Slurm tells each task of its place, so the command needs no flag for it.
#SBATCH --job-name=whale
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --requeue
# Two minutes before the time is up, or before another job takes the nodes.
#SBATCH --signal=TERM@120

srun --kill-on-bad-exit=0 keras-llm train \
  --config=/runs/whale_config.py --train_text=/runs/tokens --run_dir=/runs/whale --resume
status=$? # The highest of the workers'.
# 75: asked to end, saved. 69: another worker was lost. Both go on where they stood.
# 137: a worker was killed, as for its memory; that may come again, so not for ever.
if [[ $status -eq 75 || $status -eq 69 ]] ||
  [[ $status -eq 137 && ${SLURM_RESTART_COUNT:-0} -lt 6 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
