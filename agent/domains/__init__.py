"""The domains poetd brings: what POET knows of a field, one folder each."""
