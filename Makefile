# make demo         compile the demo model, generate with and without speculation, replay the golden outputs
# make real         a real model: compile it, chat, replay its golden outputs, measure it; prints README's first table
# make real-short   make real with few recipes and few tokens, as CI runs it
# make test         the tests, but the slow ones
# make quick        a sample of the tests that need neither torch nor a model, in 45 s
# make lint         style and types
# make sanitize     the kernels' parity tests under the address and the undefined-behaviour sanitizer
# make docs         the site, into build/docs/site; a broken link fails
# make test-latest  the tests with the newest releases that pyproject.toml admits, in an environment of their own
# make test-runtimes  the demo bundle's golden outputs with old and new releases of ONNX Runtime; needs the index
# make bench-check  a new run of the benchmarks beside the last one of this machine
# make mutants      how many small faults in the code the tests notice; hours
# make lock         uv.lock anew, and what is exported from it; `make lock UPGRADE=--upgrade` takes newer releases
# make clean        remove what the others made
#
# All of them want Python 3.11 and a package index, and install the rest. `test` and `sanitize` build specc-kernels, if
# there is a C++ compiler.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
LATEST := build/latest
DEMO := build/demo.specc
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
INSTALL := PYTHON=$(PYTHON) .ci/install.sh
TEST_FOLDERS := $(filter-out bundles chat_templates doubles fuzz stubs,$(notdir $(patsubst %/,%,$(wildcard tests/*/))))
KERNELS := $(wildcard kernels/CMakeLists.txt kernels/pyproject.toml kernels/src/* kernels/python/*/*.py)
INPUTS := uv.lock pyproject.toml specc/__init__.py $(wildcard .ci/*)

# To compile the modules of torch and of the others takes each process five seconds. The results lie in build/, also if
# the user wants none beside the sources.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache

.PHONY: demo real real-short test quick lint style types sanitize docs test-latest test-runtimes bench-check mutants lock lock-check clean
.DELETE_ON_ERROR:

$(VENV)/ready: $(INPUTS)
	$(INSTALL) $(VENV)
	touch $@

# A group of pyproject.toml in addition: docs, trt, mutants, real
$(VENV)/ready-%: $(VENV)/ready
	$(INSTALL) $(VENV) --group $*
	touch $@

# specc-kernels, built by the compiler at hand. Without one, a line says so, and the tests that need it are skipped.
$(VENV)/ready-kernels: $(VENV)/ready $(KERNELS)
	$(INSTALL) $(VENV) --kernels
	[ ! -d $(VENV)/lib/python*/site-packages/specc_kernels ] || touch $@

demo: $(VENV)/ready
	$(BIN)/specc compile examples/pycode-10m --assistant-model examples/pycode-1m \
		--dtype fp32 --prompts examples/prompts.jsonl --golden-tokens 48 --output $(DEMO) --overwrite
	@echo; echo "== plain decoding"
	$(BIN)/specc generate $(DEMO) --prompt "$$(cat examples/prompt.txt)" --no-speculation
	@echo; echo "== the default recipe"
	$(BIN)/specc generate $(DEMO) --prompt "$$(cat examples/prompt.txt)"
	@echo; echo "== the golden outputs, by every recipe"
	$(BIN)/specc test $(DEMO)

real: $(VENV)/ready-real
	$(BIN)/python benchmarks/real.py

real-short: $(VENV)/ready-real
	$(BIN)/python benchmarks/real.py --short

test: $(VENV)/ready-kernels
	$(BIN)/python $(PYTEST)

# A process takes whole files, so that it loads their models once, the longest files first.
quick: $(VENV)/ready
	$(BIN)/python $(PYTEST) --dist loadfile --loadscope-reorder --hypothesis-profile quick \
		-m "not torch and not model and not slow and not process and not thorough" tests

lint: style types

style: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck .ci/run .ci/*.sh

# mypy finds packages by their folders, so they are copied to where package-dir says that they are. The tests import
# what lies in tests/ by its bare name, and their own folders are called as those of the code: they go into checks/.
types: $(VENV)/ready
	rm -rf build/types && mkdir -p build/types/checks
	cp -r specc build/types/specc && cp -r passes runtime build/types/specc/
	cp -r tests/*.py tests/doubles tests/fuzz build/types/
	cd tests && cp -r $(TEST_FOLDERS) ../build/types/checks/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --explicit-package-bases \
		-p specc -p doubles -p fuzz -p checks $(patsubst tests/%.py,-m %,$(wildcard tests/*.py))

sanitize: $(VENV)/ready-kernels
	.ci/sanitize.sh $(VENV)

docs: $(VENV)/ready-docs
	$(BIN)/mkdocs build --strict

test-latest:
	$(INSTALL) $(LATEST) --latest
	$(INSTALL) $(LATEST) --kernels
	$(LATEST)/bin/python $(PYTEST)

test-runtimes: demo
	$(BIN)/python tests/runtimes.py $(DEMO) 1.20.1 1.22.1 1.32.0

bench-check: $(VENV)/ready
	$(BIN)/python benchmarks/check.py

mutants: $(VENV)/ready-mutants
	$(BIN)/python tests/mutants.py

lock:
	.ci/lock.sh $(UPGRADE)

lock-check:
	.ci/lock.sh --check

clean:
	rm -rf build $(VENV)
