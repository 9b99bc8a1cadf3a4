.PHONY: test
# All tests, those on real Open vSwitch included. Needs root, and what tests/install-tools installs.
# The lab's tests run the built controller, which testing alone wouldn't build.
test:
	cargo build --workspace --locked
	cargo test --workspace --locked
