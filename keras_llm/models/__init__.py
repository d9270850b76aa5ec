"""One file per architecture: config, functional builder, decoder."""
