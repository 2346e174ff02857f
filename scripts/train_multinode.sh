#!/usr/bin/env bash
# Trains on several machines without Slurm: run it on each of them, with the same arguments.
#
#     NODES=2 HEAD=gpu1.example.org bash scripts/train_multinode.sh options/train_dbn.yml [more arguments of `deblurkit train`]
#
# HEAD is one of the machines; PORT there (29500 by default) must be free and open to the others. GPUS is the number of
# processes on each machine (by default all its GPUs). The experiments folder is written by one process alone, but for a
# resume all machines must see it: put it on shared storage. The same command on all machines resumes.
set -euo pipefail

: "${NODES:?the number of machines}" "${HEAD:?the name or address of one of them}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec torchrun --nnodes "$NODES" --nproc-per-node "${GPUS:-gpu}" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29500}" --rdzv-id "${RUN_ID:-deblurkit}" \
    -m deblurkit train --launcher torchrun -opt "$@"
