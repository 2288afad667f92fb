#!/bin/sh
# Runs driver.cpp under AddressSanitizer + UBSan, ThreadSanitizer and, where installed, Valgrind,
# at every level that runs here, with clean and with poisoned scratch memory.
# sanitize.sh FOLDER-FOR-OBJECTS
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?folder}
python=${PYTHON:-python3}

build() { # name, flags ...
  name=$1
  shift
  "$python" "$here/build.py" --driver "$out/$name" -g -fno-omit-frame-pointer "$@"
}

run() { # command ...
  levels="baseline"
  grep -qw avx2 /proc/cpuinfo && levels="$levels avx2"
  grep -qw avx512f /proc/cpuinfo && levels="$levels avx512"
  [ "$(uname -m)" = x86_64 ] || levels="portable"
  for level in $levels; do
    for poison in 0 1; do
      echo "-- $* (level $level, poison $poison)"
      GROKFAST_POISON=$poison "$@" "$level" 6
    done
  done
}

build address -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
run "$out/address/driver"
build thread -O1 -fsanitize=thread
run "$out/thread/driver"
if command -v valgrind > /dev/null; then
  build plain -O1
  run valgrind -q --error-exitcode=9 --leak-check=full "$out/plain/driver"
else
  echo "-- valgrind is not installed: skipped"
fi
