"""What other programs call: the Docker CLI plugin, the pex wrapper, git's hooks, hatchling."""
