# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Each does its own set-up.

MODELS   ?= ../shared/models
PICTURES ?= ../shared/pictures
ONCE     ?=
export XDG_RUNTIME_DIR ?= /tmp

.PHONY: help setup build site guest serve demo demo-cluster test test-browser test-wazero soak versitygw check bench curves assets generate

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup: ## install the Debian packages that are missing: a software Vulkan device, Chromium, a C compiler
	@internal/setup.sh

site: ## build the page's program (wasm/browser) into site/dist, which the program embeds
	go run ./internal/makesite site/dist

guest: ## build the sandbox's program (wasm/headless/guest) into wasm/headless/dist, which the program embeds
	go run ./internal/makeguest wasm/headless/dist

build: site guest ## build bin/fromage
	go build -o bin/fromage ./cmd/fromage

serve: build ## serve the page with the model and pictures in the repository, and open it
	bin/fromage serve

demo: setup build ## show the main job in the terminal, then serve the page; ONCE=1 (or no terminal) drives the page once in headless Chromium and exits
	bin/fromage demo --once --html out/demo.html
	@if [ -z "$(ONCE)" ] && [ -t 0 ] && [ -t 1 ]; then bin/fromage serve; else \
		go test -count=1 -run 'TestPage/(first_load|chat|search)$$' ./site/e2e && echo "screenshots of the page: out/page-chat.png out/page-search.png"; fi

demo-cluster: setup build versitygw ## two servers on one S3 bucket and one NATS, each with a page; what is published to one shows on both. ONCE=1 publishes once and exits
	@internal/cluster.sh

versitygw: ## build bin/versitygw, the S3 server of tests and demo-cluster
	@[ -x bin/versitygw ] || GOBIN=$(CURDIR)/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

soak: setup site versitygw ## the sync server's and its pages' kill, damage and load tests at full length
	FROMAGE_SOAK=1 FROMAGE_REQUIRE_MOUNT=1 FROMAGE_REQUIRE_S3=1 FROMAGE_VERSITYGW=$(CURDIR)/bin/versitygw go test -count=1 -timeout 60m -v -run 'Cuts|Flips|Damaged|Killed|GalleryDelta|Load|DiskFull|Cluster|OnS3' ./server/...
	FROMAGE_REQUIRE_MOUNT=1 go test -count=1 -v -run FullDisk ./cmd/fromage
	FROMAGE_SOAK=1 FROMAGE_REQUIRE_BROWSER=1 go test -count=1 -timeout 100m -v -run TestKilled ./site/e2e

test: setup site guest check versitygw ## run all tests on every device: the Go twins, WebGPU natively through both bindings, Chromium, wazero
	FROMAGE_REQUIRE_S3=1 FROMAGE_VERSITYGW=$(CURDIR)/bin/versitygw go test -timeout 40m ./...
	go test -timeout 20m -tags cogentcore ./gpu/native ./shaders ./verify
	go test -timeout 20m -race -short ./gpu/... ./runner ./dataset ./internal/ahead ./index ./tokenizer ./vision ./bundle ./compiler/... ./server/...
	$(MAKE) test-browser test-wazero

test-browser: setup ## run the packages' tests inside headless Chromium, on its WebGPU
	go build -o bin/browserexec ./internal/browserhost/exec
	FROMAGE_REQUIRE_BROWSER=1 GOOS=js GOARCH=wasm go test -timeout 30m -exec $(CURDIR)/bin/browserexec ./gpu ./gpu/cpu ./gpu/browser ./shaders ./plan ./tokenizer ./index ./vision ./bundle ./runner

# What wazero interprets is a hundred times slower than what it compiles, and that is twenty times slower than Go itself: the one gets a few tests, the
# other leaves out what tries every byte or character in a loop.
INTERPRETED = 'TestList|TestHandles|TestCodec|TestNormalize|TestGatherRows|TestRoundTrip|TestRefused|TestGolden/remote/opt/pre-norm'
EXHAUSTIVE  = 'TestDamage$$|TestClasses|TestLongPieces|TestRandom|TestEveryBitCounts|TestManySegments|TestBranches'

test-wazero: setup ## run the packages' tests as WebAssembly guests in wazero, on the host's devices; a few with wazero's interpreter
	go build -o bin/wazeroexec ./internal/wazerohost/exec
	GOOS=wasip1 GOARCH=wasm go test -short -timeout 30m -exec $(CURDIR)/bin/wazeroexec -skip $(EXHAUSTIVE) ./gpu ./gpu/cpu ./shaders ./plan ./model ./bundle ./tokenizer ./index ./vision ./runner ./verify ./server/wire
	FROMAGE_WAZERO_INTERPRETER=1 GOOS=wasip1 GOARCH=wasm go test -short -timeout 30m -exec $(CURDIR)/bin/wazeroexec -run $(INTERPRETED) ./gpu ./shaders ./plan ./server/wire ./verify

check: ## formatting, generated files, vet, staticcheck, builds for every host
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not gofmt'ed: $$unformatted"; exit 1; }
	@for f in shaders/kernels_gen.go internal/simd/simd_amd64.s; do \
		cp $$f /tmp/generated.$$$$ && go generate ./$${f%/*} && cmp -s $$f /tmp/generated.$$$$ || { echo "$$f was stale: run make generate and commit it"; exit 1; }; done
	go vet ./...
	go vet -tags cogentcore ./gpu/native
	CGO_ENABLED=0 go build -o /dev/null ./cmd/fromage
	GOOS=js GOARCH=wasm go vet ./server/wire ./server/version ./gpu ./gpu/cpu ./gpu/browser ./wasm/browser ./bench ./tune ./internal/kerneltest ./shaders ./plan ./model ./bundle ./tokenizer ./vision ./index ./machine ./runner
	GOOS=wasip1 GOARCH=wasm go vet ./gpu ./gpu/cpu ./gpu/remote ./shaders ./plan ./model ./bundle ./tokenizer ./vision ./index ./machine ./runner ./wasm/headless/guest ./wasm/headless/testdata/hostile
	go tool staticcheck ./...
	go mod tidy -diff

generate: ## write generated files anew
	go generate ./shaders ./internal/simd

bench: setup ## speed of the model and of every kernel on this machine's device
	go run ./cmd/fromage bench

curves: ## time against context, width, vocabulary, batch, index and pictures, as CSV and SVG in out/curves; CURVES="-quick" or "-memory 12 -device gpu"
	go run ./internal/curves -o out/curves $(CURVES)

assets: ## make the model and the gallery in assets/ anew from MODELS and PICTURES
	go run ./internal/makegallery -models $(MODELS) -pictures $(PICTURES) -o assets
