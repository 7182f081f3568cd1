"""The commands, a file each; they import what is heavy when they run, so that `gno --help` answers at once."""
