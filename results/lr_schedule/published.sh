# The published sizes (PES paper's code): MNIST, two hidden layers of 100, T = 5000, K = 10,
# 1000 particles, Adam at 0.01, sigma 0.1, 5000 updates, a grid of 40 x 40. A path is
# 50,000,000 steps; part of it was run, by results/published/run.py. MNIST is downloaded where it is not in the cache.
set -eu
for objective in training-loss validation-accuracy; do
    python -m pes_rl.analyze surface --env unrolled:lr-schedule \
        --env-kwargs "{\"data\": \"mnist\", \"objective\": \"$objective\"}" \
        --low -6.91 -5.07 --high -1.15 5.07 --points 40 --sigma 0.3 \
        --agent pes truncated-es --updates 5000 \
        --logdir "runs/lr_schedule-published/$objective"
done
