"""Plants at work: loading one by name, tying its points to a site's, and serving it over real sockets."""
