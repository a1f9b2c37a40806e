#!/bin/bash
# Run a command as a rank: srun starts a copy of this for each GPU. So signals of SLURM reach every rank, and no
# torchrun is needed. MASTER_ADDR and MASTER_PORT are set by the job.
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS
export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_NNODES))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$@"
