# Regenerates this folder; run it from the repository's root. An argument names the parts
# to run, such as text; without one all are.
set -eu
for part in ${*:-text random repeated identical independent text_analytic}; do
    common="--logdir results/variance/$part --seed 0"
    case $part in
    text | random | repeated)
        python -m pes_rl.analyze variance --env unrolled:lstm \
            --env-kwargs "{\"regime\": \"$part\"}" --agent pes nres \
            --horizon 200 --truncation-length 1 2 5 10 20 50 100 200 \
            --num-pairs 100 --sigma 0.001 --repeats 30 --reference-repeats 200 $common
        ;;
    text_analytic)
        python -m pes_rl.analyze variance --env unrolled:lstm \
            --env-kwargs '{"regime": "text"}' --agent pes pes-analytic \
            --horizon 200 --truncation-length 10 50 200 \
            --num-pairs 100 --sigma 0.001 --repeats 30 --reference-repeats 200 $common
        ;;
    identical | independent)
        python -m pes_rl.analyze variance --env "linear:$part" \
            --agent pes nres truncated-es --num-pairs 1 --sigma 0.1 \
            --repeats 2000 $common
        ;;
    esac
done
