.PHONY: test
# All tests, those on real Open vSwitch included. Needs root.
test:
	cargo test --workspace --locked
