# The published sizes (PES paper's code): an LSTM of 5 units on 1000 characters of Penn
# Treebank, 500 pairs, sigma 0.001, 50 estimates a point, the gradient from 5000 particles
# (here 5 whole-episode estimates of 500 pairs). TEXT is ptb.char.train.txt. Not run here.
set -eu
text=${1:?bash results/variance/published.sh TEXT}
for regime in text random repeated; do
    python -m pes_rl.analyze variance --env unrolled:lstm \
        --env-kwargs "{\"regime\": \"$regime\", \"text_file\": \"$text\", \
            \"split_on_spaces\": true}" \
        --agent pes nres --truncation-length 1 2 5 10 20 50 100 200 500 1000 \
        --num-pairs 500 --sigma 0.001 --repeats 50 --reference-repeats 5 \
        --logdir "runs/variance-published/$regime"
done
