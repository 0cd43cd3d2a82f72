#!/usr/bin/env bash
# make_venv.sh PYTHON VENV: an environment that also sees the packages of PYTHON, behind its own.
# `venv --system-site-packages` shows those of the Python that PYTHON was made from, which is another where PYTHON is
# a virtual environment itself. What is there is kept, unless it was made from another Python.
set -euo pipefail
python=$1 venv=$2

origin=$("$python" -c 'import sys; print(sys.prefix, sys.version)')
[[ -x $venv/bin/python && -f $venv/origin && $(<"$venv/origin") == "$origin" ]] && exit

# Without pip: Debian's Python has none to give to environments, and PYTHON's is seen anyway.
"$python" -m venv --clear --without-pip "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Folders that a .pth file names come after the one that it lies in.
"$python" - > "$site/machine.pth" <<'LIST'
import sys
print(*(path for path in sys.path if path.endswith(("site-packages", "dist-packages"))), sep="\n")
LIST
"$venv/bin/python" -m pip --version > /dev/null 2>&1 || "$venv/bin/python" -m ensurepip > /dev/null
echo "$origin" > "$venv/origin"
