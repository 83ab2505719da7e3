"""What happens under the lease: scripts are called, watched, cancelled and recorded."""
