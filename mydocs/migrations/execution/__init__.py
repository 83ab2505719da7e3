"""Run scripts under the lease: call, watch, cancel and record them."""
