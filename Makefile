.PHONY: test sim demo bench-repair bench-codec check-osken build clean-lab fuzz

# The lab makes network namespaces and runs Open vSwitch in them, for which it needs root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
LAB := $(or $(CARGO_TARGET_DIR),target)/release/lab

# All tests, those on real Open vSwitch included. Needs root.
# The lab's tests run the built controller, which testing alone wouldn't build.
test:
	$(SUDO) tests/install-tools
	cargo build --workspace --locked
	cargo test --workspace --locked

# The simulation (docs/simulation.md) with many seeds. SEEDS=17..18: only seed 17. Needs no root.
SEEDS ?= 10000
sim:
	ESPALIER_SEEDS=$(SEEDS) cargo test --release --locked -p espalier-tests --test simulation

build:
	$(SUDO) tests/install-tools
	cargo build --release --locked -p espalier -p espalier-tests

# What Espalier does, with real packets. LAYOUT=per-tenant|shared, CARRIER=vxlan|gre|geneve|veth, HOSTS=3,
# ONCE=1 to exit after the last step.
LAYOUT ?= per-tenant
CARRIER ?= vxlan
HOSTS ?= 3
demo: build
	@$(SUDO) $(LAB) demo --layout $(LAYOUT) --carrier $(CARRIER) --hosts $(HOSTS) $(if $(ONCE),--once)

# How long traffic stops when something breaks, for Espalier and its rivals; renews tests/data/repair.toml. All takes
# an hour and a half; less: RUNS=1 WAYS=espalier,rstp FAILURES=cut,tunnel,carrier,host,control SIZES=3
SIZES ?= 3,5
bench-repair: build
	$(SUDO) $(LAB) bench-repair --hosts $(SIZES) \
		$(if $(RUNS),--runs $(RUNS)) $(if $(WAYS),--ways $(WAYS)) $(if $(FAILURES),--failures $(FAILURES))

# The codec beside os-ken's and rovs-openflow's, in one run; docs/performance.md holds a result. Needs Python with venv.
PEERS := openflow/benches/peers
OSKEN := $(or $(CARGO_TARGET_DIR),target)/os-ken
bench-codec: $(OSKEN)
	cargo run --release --locked --quiet --manifest-path $(PEERS)/Cargo.toml -- $(OSKEN)/bin/python

# os-ken decodes thousands of messages of ours to the same meaning. Beside the tests, as it has to be fetched.
check-osken: $(OSKEN)
	OSKEN_PYTHON=$(abspath $(OSKEN))/bin/python cargo test --locked -p espalier-openflow --test differential -- --ignored

$(OSKEN):
	python3 -m venv $@.new
	$@.new/bin/pip install --quiet --disable-pip-version-check os-ken==4.2.2
	rm -rf $@ && mv $@.new $@

# Feeds the decoders and the policy parser what they never saw, beginning with the tests' messages and policies. A crash leaves its
# input in fuzz/artifacts. Longer: SECONDS_EACH=3600
SECONDS_EACH ?= 60
fuzz:
	cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version 0.13.2 --locked
	fuzz/seed
	for target in frames message policy; do \
		cargo fuzz run -s none $$target -- -max_total_time=$(SECONDS_EACH) -max_len=4096 -timeout=5 || exit 1; \
	done

# Removes what a killed test or demo left behind.
clean-lab: build
	$(SUDO) $(LAB) clean
