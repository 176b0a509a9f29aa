#!/bin/sh
# All that is to be measured on a GPU, the most telling first, each within a limit: thirteen minutes at most.
#
#     sh benchmarks/on_a_gpu.sh results [folder of Set12]
#
# Every command's output lies in results/NAME.log, tables also as JSON lines; one that fails or takes too long ends none of
# the others.
set -u
out=${1:?usage: sh benchmarks/on_a_gpu.sh FOLDER [DATA]}
mkdir -p "$out"
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"

measure() {
    name=$1 limit=$2
    shift 2
    began=$(date +%s)
    timeout "$limit" python -W ignore -m "$@" >"$out/$name.log" 2>&1
    echo "$name: exit code $?, $(($(date +%s) - began)) s"
}

measure backends 30 nlrn models --backends
measure network 90 benchmarks.network --sizes 256,512 --out "$out"
measure tests 150 pytest -m gpu -q -W default --durations 10
measure photograph 60 benchmarks.network --sizes 4096x6144 --dtype float16 --max-memory 16G --longest 0 --out "$out"
measure operator 90 benchmarks.operator --sides 64,256,512,1024,2048 --dtype float16 --longest 2 --out "$out"
measure training 60 benchmarks.training configs/denoise_gray.yaml --crops 48x28,80x10 --fuse
measure tuning 120 benchmarks.tuning --out "$out"
measure photograph-all 30 benchmarks.network --sizes 4096x6144 --dtype float16 --longest 0 --out "$out"
measure compiled 90 benchmarks.network --sizes 64,128,256 --compile --out "$out"
if [ $# -gt 1 ]; then
    measure set12 60 nlrn benchmark denoise --data "$2" --sets Set12 --precision float16
fi
