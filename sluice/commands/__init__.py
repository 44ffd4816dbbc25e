"""What `sluice <command>` does, a module for each family of commands; `sluice.cli` puts them together."""
