# make demo   compile the demo model, generate with and without speculation, replay the golden outputs
# make test   the whole test suite
# make lint   style and types
# make docs   the pages of docs/ as a site; a broken link is an error
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := build/demo.specc

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[bench,compile,cpu,dev]'
	touch $@

.PHONY: demo test lint docs clean
demo: $(VENV)/ready
	$(BIN)/specc compile examples/pycode-10m --assistant-model examples/pycode-1m \
		--prompts examples/prompts.jsonl --golden-tokens 48 --output $(DEMO) --overwrite
	@echo; echo "== plain decoding"
	$(BIN)/specc generate $(DEMO) --prompt "$$(cat examples/prompt.txt)" --no-speculation
	@echo; echo "== the default recipe"
	$(BIN)/specc generate $(DEMO) --prompt "$$(cat examples/prompt.txt)"
	@echo; echo "== the golden outputs, by every recipe"
	$(BIN)/specc test $(DEMO)

test: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types
	cp -r specc build/types/specc && cp -r passes runtime build/types/specc/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p specc

docs: $(VENV)/ready
	$(BIN)/pip install --quiet 'mkdocs<2' mkdocs-material 'mkdocstrings[python]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf build $(VENV)
