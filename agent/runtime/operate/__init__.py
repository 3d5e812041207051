"""Operate: where the site's own control functions run, outside core, in processes that can be killed.

``zygote`` loads the functions once and forks workers in milliseconds; ``worker`` runs batches; ``lanes`` is core's side: deadlines,
quarantine, restarts; ``protocol`` is what they say to each other.
"""
