# Regenerates this folder; run it from the repository's root. An argument names the parts
# to run, loss or accuracy; without one both are.
set -eu
for part in ${*:-loss accuracy}; do
    case $part in
    loss) objective=training-loss ;;
    accuracy) objective=validation-accuracy ;;
    esac
    python -m pes_rl.analyze surface --env unrolled:lr-schedule \
        --env-kwargs "{\"data\": \"digits\", \"batch_size\": 32, \
            \"hidden_sizes\": [16, 16], \"horizon\": 500, \"objective\": \"$objective\"}" \
        --low -7.5 -5 --high 0 6 --points 32 --sigma 0.4 \
        --agent pes truncated-es --updates 1000 \
        --settings '{"num_pairs": 50, "sigma": 0.3, "learning_rate": 0.03}' \
        --logdir "results/lr_schedule/$part"
done
