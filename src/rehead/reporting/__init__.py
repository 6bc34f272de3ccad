"""One page about a run that a person wants to read and pass on."""
