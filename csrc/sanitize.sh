#!/bin/sh
# Runs driver.cpp under a checker at every level that runs here, with clean and with poisoned scratch
# memory: AddressSanitizer + UBSan, ThreadSanitizer, or Valgrind, where installed.
# sanitize.sh FOLDER-FOR-OBJECTS address|thread|valgrind
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?folder}
checker=${2:?address, thread or valgrind}
python=${PYTHON:-python3}

build() { # flags ...
  "$python" "$here/build.py" --driver "$out/$checker" -g -fno-omit-frame-pointer -O1 "$@"
}

levels="baseline"
grep -qw avx2 /proc/cpuinfo && levels="$levels avx2"
grep -qw avx512f /proc/cpuinfo && levels="$levels avx512"
[ "$(uname -m)" = x86_64 ] || levels="portable"

run() { # command ...
  for level in $levels; do
    for poison in 0 1; do
      echo "-- $* (level $level, poison $poison)"
      GROKFAST_POISON=$poison "$@" "$level" 6
    done
  done
}

case $checker in
  address)
    build -fsanitize=address,undefined -fno-sanitize-recover=all
    run "$out/address/driver"
    ;;
  thread)
    build -fsanitize=thread
    run "$out/thread/driver"
    ;;
  valgrind)
    if command -v valgrind > /dev/null; then
      build
      # Its processor has no AVX-512, whatever the machine's.
      case $levels in *avx512*) echo "-- valgrind does not know AVX-512: level avx512 skipped" ;; esac
      levels=${levels% avx512}
      run valgrind -q --error-exitcode=9 --leak-check=full "$out/valgrind/driver"
    else
      echo "-- valgrind is not installed: skipped"
    fi
    ;;
  *)
    echo "no such checker: $checker; there are address, thread and valgrind" >&2
    exit 2
    ;;
esac
