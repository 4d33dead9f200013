# The front door for developers. CMake presets do the work; people and CI run the same commands.
PRESET ?= release
CLANG_FORMAT ?= clang-format-19
CLANG_TIDY ?= clang-tidy-19
SOURCES = $(shell git ls-files '*.cc' '*.h')

.DEFAULT_GOAL := help
.PHONY: help deps build test unit bench format check-format lint quickstart up down status clean

help: ## show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
deps: ## install the Debian packages that building and testing need (root)
	scripts/deps test
build: ## build (PRESET=release, dev or tsan) into build/PRESET
	cmake --preset $(PRESET) && cmake --build --preset $(PRESET)
unit: build ## build and run the tests that need no root
	ctest --preset $(PRESET) -L 'unit|golden|fuzz|conformance'
test: ## everything: packages, builds, all tests (root)
	scripts/test
bench: ## run the benchmarks and print their tables (root)
	scripts/bench
format: ## rewrite all sources with clang-format
	$(CLANG_FORMAT) -i $(SOURCES)
check-format: ## fail if a source is not formatted
	$(CLANG_FORMAT) --dry-run -Werror $(SOURCES)
lint: ## run clang-tidy on the release build's compile commands
	cmake --preset release && run-$(CLANG_TIDY) -quiet -p build/release $(filter %.cc,$(SOURCES))
quickstart: ## a cluster with an exposed application on this machine (root)
	scripts/quickstart
up: build ## start the lab (root)
	build/release/bin/fairlead up
down: ## remove the lab (root)
	build/release/bin/fairlead down
status: ## show the lab
	build/release/bin/fairlead status
clean: ## remove the build folder
	rm -rf build
